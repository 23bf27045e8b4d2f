// TensorFlow.js: a model is a JSON file (topology and list of weights) and the weights' bytes.
import * as module from "@tensorflow/tfjs";

const tf = module.default ?? module; // Node sees the package through its `default`

export async function load(url, { backend, format, runtime }) {
  if (backend === "wasm") {
    const wasm = await import("@tensorflow/tfjs-backend-wasm"); // a package of its own
    if (runtime) wasm.setWasmPaths(`${runtime}/@tensorflow/tfjs-backend-wasm/dist/`);
  }
  if (!(await tf.setBackend(backend))) throw new Error(`${backend} does not run here`);
  const model = await (format === "graph" ? tf.loadGraphModel(url) : tf.loadLayersModel(url));
  return async (pixels, n) => {
    await tf.setBackend(backend); // one for the whole page: another model may have changed it
    const answer = tf.tidy(() => model.predict(tf.tensor(pixels, [n, 28, 28])));
    const probabilities = await answer.data(); // n * 10
    answer.dispose(); // what lives in WebGL is no matter of JavaScript's garbage collector
    return probabilities;
  };
}
