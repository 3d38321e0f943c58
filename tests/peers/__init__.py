"""Tests with the real programs that people use: browsers, ffmpeg, GStreamer. ``install`` gets them."""
