import numpy as np
import pytest

from mixer.audio.stretch import MAX_PERIOD, MIN_PERIOD, Concealer, lengthen, shorten
from tests.mixer.audio.signals import distortion_db, tone, voiced


@pytest.mark.parametrize("hz", [100.0, 180.0, 250.0])
def test_a_tone_stays_a_tone_when_shortened_and_lengthened(hz):
    pcm = tone(hz, 0.2)
    shorter = np.concatenate((pcm[:1920], shorten(pcm[1920:3840], quiet=False), pcm[3840:]))
    longer = np.concatenate((pcm[:1920], lengthen(pcm[1920:2880]), pcm[2880:]))
    assert MIN_PERIOD <= len(pcm) - len(shorter) <= MAX_PERIOD + MIN_PERIOD
    assert MIN_PERIOD <= len(longer) - len(pcm) <= MAX_PERIOD
    assert distortion_db(shorter, hz) < -25
    assert distortion_db(longer, hz) < -25


@pytest.mark.parametrize("change", [lambda pcm: shorten(pcm, quiet=False), lengthen])
def test_the_joints_do_not_click(change):
    pcm = voiced(0.04)
    assert np.abs(np.diff(change(pcm))).max() <= 1.2 * np.abs(np.diff(pcm)).max()


def test_the_ends_are_untouched_so_that_frames_fit_together():
    pcm = voiced(0.04)
    assert np.array_equal(shorten(pcm, quiet=False)[-200:], pcm[-200:])
    assert np.array_equal(shorten(pcm, quiet=False)[:200], pcm[:200])
    assert np.array_equal(lengthen(pcm[:960])[-200:], pcm[760:960])


def test_a_quiet_stretch_loses_a_whole_frame():
    assert len(shorten(np.zeros(1920, np.float32), quiet=True)) == 960


def test_a_hole_in_a_tone_is_filled_with_the_tone():
    pcm = tone(200.0, 0.2)
    concealer = Concealer()
    out = [concealer.keep(pcm[at : at + 960]) for at in range(0, 4800, 960)]
    out.append(concealer.conceal(480))  # ten of the lost twenty milliseconds are held at full level
    assert distortion_db(np.concatenate(out), 200.0) < -25


def test_a_long_hole_fades_out_and_the_return_does_not_click():
    pcm = tone(200.0, 0.5)
    concealer = Concealer()
    out = [concealer.keep(pcm[at : at + 960]) for at in range(0, 4800, 960)]
    out += [concealer.conceal(960) for _ in range(5)]
    assert np.abs(out[-1]).max() == 0.0
    out.append(concealer.keep(pcm[9600 + 100 : 9600 + 1060]))
    assert np.abs(np.diff(np.concatenate(out))).max() < 0.02
