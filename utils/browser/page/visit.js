// What the page and the notebook ask for, whatever engine answers.
import { fromCanvas } from "./pixels.js";

const engines = {
  tfjs: () => import("./engines/tfjs.js"),
  onnx: () => import("./engines/onnx.js"),
  litert: () => import("./engines/litert.js"),
};

// What each engine can compute on; the first is the one to begin with.
export const BACKENDS = {
  tfjs: ["wasm", "webgl", "cpu"],
  onnx: ["wasm", "webgpu"],
  litert: ["wasm"],
};

export class Visit {
  // site: the address of the pages; runtime: that of the engines' files, null where Node finds them
  constructor(site, runtime) {
    this.site = site;
    this.runtime = runtime;
    this.opened = new Map();
    this.loaded = () => {}; // called after each load
  }

  async catalog() {
    return (await fetch(`${this.site}/site/catalog.json`, { cache: "no-store" })).json();
  }

  // Loads one model on one backend; after this it needs no network.
  async load(name, backend) {
    const key = `${name} on ${backend}`;
    if (!this.opened.has(key)) {
      const { engine, file, format } = (await this.catalog()).models[name];
      const { load } = await engines[engine]();
      const options = { backend, format, runtime: this.runtime };
      this.opened.set(key, await load(`${this.site}/site/${file}`, options));
    }
    this.loaded();
    return key;
  }

  // pixels: n * 784 numbers from 0 to 255; returns n * 10 probabilities
  async ask(key, pixels) {
    const answer = await this.opened.get(key)(Float32Array.from(pixels), pixels.length / 784);
    return Array.from(answer);
  }

  // What the drawing paper makes of side * side * 4 bytes
  fromCanvas(rgba, side) {
    return Array.from(fromCanvas(rgba, side));
  }

  // Milliseconds of one picture: name -> the first call, then rounds, taken in turns
  async time(keys, pixels, rounds) {
    const input = Float32Array.from(pixels);
    const mean = async (key, calls) => {
      const begin = performance.now();
      for (let i = 0; i < calls; i++) await this.opened.get(key)(input, 1);
      return (performance.now() - begin) / calls;
    };
    const taken = {};
    const calls = {}; // so many that the clock, which a browser blurs to 0.1 ms, can tell
    for (const key of keys) {
      taken[key] = [await mean(key, 1)];
      calls[key] = Math.min(200, Math.ceil(20 / Math.max(await mean(key, 5), 0.1)));
    }
    for (let round = 0; round < rounds; round++) {
      for (const key of keys) taken[key].push(await mean(key, calls[key]));
    }
    return taken;
  }
}
