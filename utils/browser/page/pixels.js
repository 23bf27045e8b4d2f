// From a canvas to what Fashion-MNIST is made of: 28 * 28 numbers, 0 for paper and 255 for ink.

// rgba: side * side * 4 bytes, row by row, as `getImageData` gives them
export function fromCanvas(rgba, side) {
  const step = side / 28;
  const pixels = new Float32Array(784);
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const at = 4 * (row * side + column); // red, green, blue, alpha stand together
      const gray = (rgba[at] + rgba[at + 1] + rgba[at + 2]) / 3;
      pixels[28 * Math.floor(row / step) + Math.floor(column / step)] += 255 - gray;
    }
  }
  return pixels.map((sum) => sum / step ** 2); // the mean of each block
}

// The way back, for showing: dark where the number is high
export function toImage(pixels) {
  const image = new ImageData(28, 28);
  pixels.forEach((value, i) => {
    image.data.fill(255 - value, 4 * i, 4 * i + 3);
    image.data[4 * i + 3] = 255;
  });
  return image;
}
