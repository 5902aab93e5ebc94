/** Ends a sequence that is half read, and begins anew. Written, it comes after all that was written before. */
export const CLEAN = "\x18\x1bc";
