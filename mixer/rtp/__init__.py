"""The RTP core: sans-IO, no clock. Bytes and ``now`` (seconds, monotonic) in; packets, frames, deadlines out.

packet      RTP itself (RFC 3550, 8285) and telling datagrams apart (RFC 7983)
rtcp        reports and feedback (RFC 3550, 4585, 5104, REMB)
unwrap      short wrapping counters made endless
payload/    H.264 (RFC 6184), VP8 (RFC 7741), VP9 (RFC 9628): frame ↔ payloads
nack        which lost packet to ask for, when, and when to stop asking
assemble    packets → whole pictures in decode order
reception   what a receiver report says
history     what was sent, for those who ask again (RFC 4588)
pacing      keyframes spread over milliseconds, or over what the line needs for them
twcc        transport-wide feedback on the wire
arrivals    what we received and when, for such feedback
departures  what we sent and when, settled by such feedback
overuse     a queue that fills, seen in delays
burst       what a line carries, seen in how a burst is drawn out
probing     when to try whether it carries more
line        a line's state, its rate, when loss says that it is full
bandwidth   all of these in one estimate, of a peer that reports arrivals
sendtimes   when a sender's packets left, by its own clock
uplink      what the line of a sender carries that steers by REMB alone
echo        round trips as a measure of the way out
roundtrip   the estimate of a peer that reports nothing but losses
"""
