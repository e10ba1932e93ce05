/**
 * Loads the addon, which stands beside this module: native/maglane.node in the source tree, and
 * next to the bundle once the agent is built.
 */
import { createRequire } from 'node:module';

const load = createRequire(import.meta.url);

/** @type {import('./index.d.ts').Native} */
const native = load('./maglane.node');

export default native;
