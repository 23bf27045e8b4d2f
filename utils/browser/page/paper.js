// The drawing paper: mouse, finger, pen and keyboard.
import { fromCanvas, toImage } from "./pixels.js";

const SIDE = 280;
const CELL = 10;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Paper {
  // tool: a function that says what the pen does; changed: called with what the paper then holds
  constructor(canvas, tool, changed) {
    this.canvas = canvas;
    this.tool = tool;
    this.changed = changed;
    this.ink = new OffscreenCanvas(SIDE, SIDE); // without the cursor, which the model must not see
    this.pen = this.ink.getContext("2d", { willReadFrequently: true });
    this.cursor = [14, 14];
    this.path = null;
    this.clear();
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", () => this.end());
    canvas.addEventListener("pointercancel", () => this.end());
    canvas.addEventListener("keydown", (event) => this.key(event));
    for (const name of ["focus", "blur"]) canvas.addEventListener(name, () => this.show());
  }

  clear() {
    this.pen.fillStyle = "white";
    this.pen.fillRect(0, 0, SIDE, SIDE);
    this.show();
  }

  // Puts a picture of 28 * 28 numbers on the paper.
  put(pixels) {
    const picture = new OffscreenCanvas(28, 28);
    picture.getContext("2d").putImageData(toImage(pixels), 0, 0);
    this.pen.imageSmoothingEnabled = false;
    this.pen.drawImage(picture, 0, 0, SIDE, SIDE);
    this.show();
  }

  pixels() {
    return fromCanvas(this.pen.getImageData(0, 0, SIDE, SIDE).data, SIDE);
  }

  show() {
    const screen = this.canvas.getContext("2d");
    screen.drawImage(this.ink, 0, 0);
    if (this.canvas.matches(":focus-visible")) {
      screen.strokeStyle = "#d55e00";
      screen.lineWidth = 2;
      screen.strokeRect(this.cursor[0] * CELL, this.cursor[1] * CELL, CELL, CELL);
    }
  }

  begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.path = [[event.offsetX, event.offsetY]];
  }

  move(event) {
    if (!this.path) return;
    this.path.push([event.offsetX, event.offsetY]);
    const [from, to] = this.path.slice(-2);
    this.pen.strokeStyle = this.tool() === "erase" ? "white" : "black";
    this.pen.lineWidth = this.tool() === "fill" ? 2 : 16;
    this.pen.lineCap = "round";
    this.pen.beginPath();
    this.pen.moveTo(...from);
    this.pen.lineTo(...to);
    this.pen.stroke();
    this.show();
  }

  end() {
    if (this.path && this.tool() === "fill") {
      this.pen.fillStyle = "black";
      this.pen.beginPath();
      for (const point of this.path) this.pen.lineTo(...point);
      this.pen.fill();
    }
    this.path = null;
    this.show();
    this.changed(this.pixels());
  }

  key(event) {
    const step = MOVES[event.key];
    if (step) {
      if (event.shiftKey) this.cell("black");
      this.cursor = this.cursor.map((at, i) => Math.min(27, Math.max(0, at + step[i])));
      if (event.shiftKey) this.cell("black");
    } else if (event.key === " ") {
      const [column, row] = this.cursor;
      this.cell(this.pixels()[28 * row + column] > 127 ? "white" : "black");
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
    } else {
      return; // Tab and all else belong to the browser
    }
    event.preventDefault();
    this.show();
    this.changed(this.pixels());
  }

  cell(color) {
    this.pen.fillStyle = color;
    this.pen.fillRect(this.cursor[0] * CELL, this.cursor[1] * CELL, CELL, CELL);
  }
}
