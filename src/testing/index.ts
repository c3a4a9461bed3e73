/**
 * Helpers for tests of throttled code: they wait until calls wait, and make a throttle that answers calls by a script and
 * records them.
 *
 * @since 0.1.0
 * @module
 */
export { layer, layerFor, type RecorderOf, recorderOf } from "./layers.ts"
export { type Asked, type Call } from "./record.ts"
export { make, Recorder } from "./recorder.ts"
export { type Admission, type Answer, type Options, type Rejection } from "./script.ts"
export { waitUntilRunning, waitUntilWaiting, type Watched } from "./waiting.ts"
