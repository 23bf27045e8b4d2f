// Connects what is on the page with what answers.
import { Paper } from "./paper.js";
import { toImage } from "./pixels.js";
import { BACKENDS, Visit } from "./visit.js";

const at = (id) => document.getElementById(id);
const visit = new Visit(location.origin, `${location.origin}/runtime`);
const tool = () => document.querySelector("input[name=tool]:checked").value;
const paper = new Paper(at("paper"), tool, (pixels) => changed(pixels));
let catalog, key, pixels;
let answered = null; // a promise: the answer to the last change is on the page
let before = 0; // how many requests had been made when the model was loaded

function drawSamples() {
  catalog.samples.forEach((sample, i) => {
    const button = document.createElement("button");
    const picture = document.createElement("canvas");
    picture.width = picture.height = 28;
    picture.getContext("2d").putImageData(toImage(sample.pixels), 0, 0);
    button.type = "button";
    button.title = catalog.classes[sample.label];
    button.setAttribute("aria-label", `Picture ${i + 1}: ${button.title}`);
    button.setAttribute("aria-pressed", "false");
    button.append(picture);
    button.addEventListener("click", () => {
      paper.put(sample.pixels);
      changed(Float32Array.from(sample.pixels), button);
    });
    at("samples").append(button);
  });
}

function drawBars() {
  for (const name of catalog.classes) {
    const row = at("bars").insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head);
    const bar = row.insertCell();
    bar.className = "bar";
    bar.append(document.createElement("div"));
    row.insertCell().className = "share";
  }
}

function changed(now, button = null) {
  pixels = now;
  for (const each of at("samples").children) {
    each.setAttribute("aria-pressed", String(each === button));
  }
  answered = answer();
}

async function answer() {
  const asked = pixels;
  at("seen").getContext("2d").putImageData(toImage(pixels), 0, 0);
  const blank = pixels.every((value) => value === 0);
  const shares = blank || !key ? null : await visit.ask(key, pixels);
  if (asked !== pixels) return; // another picture came while this one was computed
  const best = shares ? shares.indexOf(Math.max(...shares)) : -1;
  [...at("bars").rows].forEach((row, i) => {
    row.className = i === best ? "first" : "";
    row.cells[1].firstChild.style.width = shares ? `${100 * shares[i]}%` : "0";
    row.cells[2].textContent = shares ? `${(100 * shares[i]).toFixed(1)} %` : "";
  });
  if (shares) {
    at("answer").textContent = `${catalog.classes[best]}, ${(100 * shares[best]).toFixed(1)} %`;
  } else if (key) {
    at("answer").textContent = "The paper is blank.";
  }
  showRequests();
}

function showRequests() {
  at("requests").textContent = performance.getEntriesByType("resource").length - before;
}

async function load() {
  const [name, backend] = [at("model").value, at("backend").value];
  at("answer").textContent = "Loading the model.";
  at("trouble").textContent = "";
  key = null;
  const last = () => name === at("model").value && backend === at("backend").value;
  try {
    const loaded = await visit.load(name, backend);
    if (last()) key = loaded;
  } catch (error) {
    if (!last()) return;
    at("answer").textContent = "No model.";
    at("trouble").textContent = `${name} on ${backend}: ${error.message}`;
  }
  if (last()) await answer();
}

function showLoaded() {
  const files = performance.getEntriesByType("resource");
  const bytes = files.reduce((sum, file) => sum + file.encodedBodySize, 0);
  before = files.length;
  at("loaded").textContent = `${files.length} files, ${(bytes / 1e6).toFixed(1)} MB`;
  showRequests();
}

function offer(select, values) {
  select.replaceChildren(...values.map((value) => new Option(value, value)));
}

async function begin() {
  performance.setResourceTimingBufferSize(10_000);
  catalog = await visit.catalog();
  drawSamples();
  drawBars();
  offer(at("model"), Object.keys(catalog.models));
  const engine = () => catalog.models[at("model").value].engine;
  const models = () => offer(at("backend"), BACKENDS[engine()]);
  at("model").addEventListener("change", () => (models(), load()));
  at("backend").addEventListener("change", load);
  at("clear").addEventListener("click", () => (paper.clear(), changed(paper.pixels())));
  pixels = paper.pixels();
  visit.loaded = showLoaded;
  if (at("model").value) {
    models();
    await load();
  } else {
    at("answer").textContent = "No model is published here.";
  }
  document.body.dataset.ready = "yes";
}

// What a test, or a notebook, asks from outside
Object.assign(window, { visit, seen: () => Array.from(pixels), answered: () => answered });
begin();
