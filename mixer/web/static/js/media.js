// What the browser captures and how much of it is sent. Nothing here talks to the server.

export const canCapture = Boolean(navigator.mediaDevices?.getUserMedia); // absent outside secure contexts
export const canShare = Boolean(navigator.mediaDevices?.getDisplayMedia); // absent on phones
const isMobile = navigator.userAgentData?.mobile ?? /Android|iPhone|iPad/.test(navigator.userAgent);

// What we send, by the rendition we chose to watch: who saves data saves it both ways.
const HIGH = {maxBitrate: 1_200_000, scaleResolutionDownBy: 1};
const LOW = {maxBitrate: 120_000, scaleResolutionDownBy: 4, maxFramerate: 10};
const SEND = {auto: HIGH, high: HIGH, medium: {maxBitrate: 400_000, scaleResolutionDownBy: 2}, low: LOW, audio: LOW};
const SCREEN = {...HIGH, maxFramerate: 15};
const VOICE = {maxBitrate: 32_000}; // as the best rendition: more is not heard in a mix

const WANTED = {
	audio: {echoCancellation: true, noiseSuppression: true, autoGainControl: true},
	video: {frameRate: {ideal: 30, max: 30}, width: {ideal: 1280, max: 1280}, height: {ideal: 720, max: 720}},
};

/** A live track of `kind` from the device, or from the browser's default one. */
export async function capture(kind, id) {
	const stream = await navigator.mediaDevices.getUserMedia({ [kind]: { ...WANTED[kind], ...(id && {deviceId: {exact: id}}) } });
	return stream.getTracks()[0];
}

export async function captureScreen() {
	const [track] = (await navigator.mediaDevices.getDisplayMedia({ video: {frameRate: {max: 15}} })).getVideoTracks();
	track.contentHint = "detail";
	return track;
}

/** Inputs of `kind`; their labels are empty until the person has allowed capture. */
export const devices = async kind => (canCapture
	? (await navigator.mediaDevices.enumerateDevices()).filter(device => device.kind === `${kind}input` && device.deviceId) : []);

/** `read()` gives the level of `track`, 0 (−50 dB) to 1; `stop()` when done. */
export function levelMeter(track) {
	const context = new AudioContext();
	const analyser = context.createAnalyser();
	const samples = new Float32Array(analyser.fftSize);
	context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
	return {
		track,
		stop: () => context.close(),
		read() {
			analyser.getFloatTimeDomainData(samples);
			return Math.max(0, 1 + Math.log10(Math.hypot(...samples) / Math.sqrt(samples.length) + 1e-6) / 2.5);
		},
	};
}

let silent;
/** No sound: a publisher that sends nothing at all is taken for gone. */
export function silence() {
	silent ??= new AudioContext().createMediaStreamDestination().stream.getAudioTracks()[0];
	return silent;
}

/** Phones encode H.264 in hardware; elsewhere VP8 is what every browser does well. */
export function preferCodecs(transceiver) {
	const first = isMobile ? ["video/h264", "video/vp8"] : ["video/vp8", "video/h264"];
	const rank = ({mimeType, sdpFmtpLine = ""}) => {
		const place = first.indexOf(mimeType.toLowerCase());
		const isBaseline = /packetization-mode=1.*profile-level-id=42|profile-level-id=42.*packetization-mode=1/.test(sdpFmtpLine);
		return place < 0 ? 4 : 2 * place + (mimeType.endsWith("264") && !isBaseline);
	};
	const codecs = RTCRtpSender.getCapabilities?.("video").codecs;
	if (codecs) transceiver.setCodecPreferences?.(codecs.sort((a, b) => rank(a) - rank(b)));
}

/** Hold a sender to its limits. They save data; the call works without. */
export async function limit(sender, rendition, isScreen) {
	const parameters = sender.getParameters();
	if (!parameters.encodings?.length) return;
	delete parameters.encodings[0].maxFramerate;
	Object.assign(parameters.encodings[0], sender.track?.kind === "audio" ? VOICE : isScreen ? SCREEN : SEND[rendition]);
	await sender.setParameters(parameters).catch(() => {});
}
