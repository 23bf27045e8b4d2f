// A visitor without a screen: the page's own modules, run by Node.
import { createInterface } from "node:readline";
import { Visit } from "./page/visit.js";

console.log = console.info = console.warn = () => {}; // standard output is for answers
const visit = new Visit(process.argv[2], null);
for await (const line of createInterface({ input: process.stdin })) {
  const [method, ...args] = JSON.parse(line);
  let reply;
  try {
    reply = { value: await visit[method](...args) };
  } catch (error) {
    reply = { error: String(error.message ?? error) };
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
}
