// What the browser captures: devices, limits, codec order. Nothing here talks to the server.

export const canCapture = Boolean(navigator.mediaDevices?.getUserMedia); // absent outside secure contexts
export const canShare = Boolean(navigator.mediaDevices?.getDisplayMedia); // absent on phones

const isMobile = navigator.userAgentData?.mobile ?? /Android|iPhone|iPad/.test(navigator.userAgent);

// What we send, by the rendition we chose to receive: who saves data saves it both ways.
const SEND = {
  high: { maxBitrate: 1_200_000, scaleResolutionDownBy: 1 },
  medium: { maxBitrate: 400_000, scaleResolutionDownBy: 2 },
  low: { maxBitrate: 120_000, scaleResolutionDownBy: 4, maxFramerate: 10 },
};
const SCREEN = { maxBitrate: 1_200_000, scaleResolutionDownBy: 1, maxFramerate: 15 };
const VOICE = { maxBitrate: 32_000 }; // the contract's high rendition: more is not heard in a mix

const constraints = {
  audio: (deviceId) => ({ deviceId, echoCancellation: true, noiseSuppression: true, autoGainControl: true }),
  video: (deviceId) => ({
    deviceId, frameRate: { ideal: 30, max: 30 }, width: { ideal: 1280, max: 1280 }, height: { ideal: 720, max: 720 },
  }),
};

/** A live track of `kind` ("audio", "video") from the device, or from the browser's default one. */
export async function capture(kind, deviceId) {
  const wanted = constraints[kind](deviceId && { exact: deviceId });
  const stream = await navigator.mediaDevices.getUserMedia({ [kind]: wanted });
  return stream.getTracks()[0];
}

export async function captureScreen() {
  const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { max: 15 } } });
  const [track] = stream.getVideoTracks();
  track.contentHint = "detail";
  return track;
}

/** Inputs of `kind`; labels are empty until the person has allowed capture. */
export async function devices(kind) {
  if (!canCapture) return [];
  const all = await navigator.mediaDevices.enumerateDevices();
  return all.filter((device) => device.kind === `${kind}input` && device.deviceId);
}

/** Level of `track` as 0…1, read as often as one likes. Call `stop` when done. */
export function levelMeter(track) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  const samples = new Float32Array(analyser.fftSize);
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  return {
    read() {
      analyser.getFloatTimeDomainData(samples);
      const rms = Math.hypot(...samples) / Math.sqrt(samples.length);
      return Math.min(1, Math.max(0, 1 + Math.log10(rms + 1e-6) / 2.5)); // −50 dB … 0 dB
    },
    stop: () => context.close(),
  };
}

let silent;
/** A track without sound: a publisher with no microphone still sends something, else the server takes it for gone. */
export function silence() {
  if (silent?.readyState !== "live") {
    silent = new AudioContext().createMediaStreamDestination().stream.getAudioTracks()[0];
  }
  return silent;
}

/** Order of video codecs to send. Phones encode H.264 in hardware; elsewhere VP8 is what every browser does well. */
export function preferCodecs(transceiver) {
  const known = RTCRtpSender.getCapabilities?.("video")?.codecs;
  if (!known || !transceiver.setCodecPreferences) return;
  const rank = ({ mimeType, sdpFmtpLine = "" }) => {
    const first = isMobile ? "video/h264" : "video/vp8";
    const type = mimeType.toLowerCase();
    if (type === "video/h264" && !sdpFmtpLine.includes("packetization-mode=1")) return 3;
    if (type === first) return sdpFmtpLine.includes("=42") || type === "video/vp8" ? 0 : 1;
    return type === "video/vp8" || type === "video/h264" ? 2 : 4;
  };
  const order = [...known].sort((a, b) => rank(a) - rank(b));
  try { transceiver.setCodecPreferences(order); } catch { /* the browser's own order works too */ }
}

/** Tell a sender its limits. `rendition`: what we watch; `screen`: sharing now. */
export async function limit(sender, rendition, screen = false) {
  const parameters = sender.getParameters();
  if (!parameters.encodings?.length) return;
  const kind = sender.track?.kind === "audio" ? VOICE : screen ? SCREEN : SEND[{ auto: "high", audio: "low" }[rendition] ?? rendition];
  const { maxFramerate, ...rest } = parameters.encodings[0];
  parameters.encodings[0] = { ...rest, ...kind };
  await sender.setParameters(parameters).catch(() => {}); // limits save data; the call works without
}
