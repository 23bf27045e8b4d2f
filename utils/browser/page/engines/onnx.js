// ONNX Runtime Web: a model is one .onnx file.
const bundles = {
  wasm: () => import("onnxruntime-web"),
  webgl: () => import("onnxruntime-web/webgl"),
  webgpu: () => import("onnxruntime-web/webgpu"),
};

export async function load(url, { backend, runtime }) {
  const ort = await bundles[backend]();
  if (runtime) ort.env.wasm.wasmPaths = `${runtime}/onnxruntime-web/dist/`;
  ort.env.wasm.numThreads = 1; // more need a page that is "cross-origin isolated"
  ort.env.logLevel = "error";
  const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
  const session = await ort.InferenceSession.create(bytes, { executionProviders: [backend] });
  return async (pixels, n) => {
    const input = new ort.Tensor("float32", pixels, [n, 28, 28]);
    const outputs = await session.run({ [session.inputNames[0]]: input });
    return outputs[session.outputNames[0]].data; // n * 10
  };
}
