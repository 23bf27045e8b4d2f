// LiteRT.js: a model is one .tflite file.
import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

let started;

export async function load(url, { backend, runtime }) {
  started ??= loadLiteRt(`${runtime}/@litertjs/core/wasm/`);
  await started;
  const model = await loadAndCompile(url, { accelerator: backend });
  return async (pixels, n) => {
    const probabilities = [];
    for (let i = 0; i < n; i++) {
      const input = new Tensor(pixels.slice(784 * i, 784 * (i + 1)), [1, 28, 28]); // fixed: one
      const [output] = await model.run(input);
      probabilities.push(...output.toTypedArray());
      input.delete(); // WebAssembly's memory has no garbage collector
      output.delete();
    }
    return probabilities; // n * 10
  };
}
