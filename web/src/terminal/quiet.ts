// A host's output may draw, and nothing else. A terminal emulator also answers questions that stand in its input, by
// "typing" the answer; a file that somebody shows with `cat` could so make the host run what it holds. Here no byte goes
// to a host but from a key, a pointer or a paste.
//
// Two layers: what asks is swallowed by the parser, so that no answer is made; and of what the emulator would send, only
// what it knows to be somebody's doing gets through, whatever a later version of it learns to answer.

import type { IFunctionIdentifier, Terminal } from "@xterm/xterm";

/** Device attributes, status and mode reports, window reports, versions, the keyboard protocol. */
const QUESTIONS: readonly IFunctionIdentifier[] = [
  { final: "c" },
  { prefix: ">", final: "c" },
  { prefix: "=", final: "c" },
  { final: "n" },
  { prefix: "?", final: "n" },
  { prefix: ">", final: "n" },
  { intermediates: "$", final: "p" },
  { prefix: "?", intermediates: "$", final: "p" },
  { prefix: ">", final: "q" },
  { prefix: "?", final: "u" },
  { intermediates: "$", final: "u" },
  { intermediates: "$", final: "w" },
  { intermediates: "*", final: "y" },
  { final: "t" },
  { prefix: ">", final: "t" },
  { final: "x" },
];

/** DECRQSS, XTGETTCAP, XTSETTCAP. */
const QUESTION_STRINGS: readonly IFunctionIdentifier[] = [
  { intermediates: "$", final: "q" },
  { intermediates: "+", final: "q" },
  { intermediates: "+", final: "p" },
];

/**
 * Titles (a host must not rename the tab that says which host it is), colours (white on white hides what was printed; and
 * they can be asked for), notifications, the clipboard, and private protocols of other terminals.
 */
const SWALLOWED_COMMANDS = [0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 50, 51, 52, 99, 104, 105, 110, 111, 112, 113, 117, 119, 633, 777, 1337, 5113, 5522] as const;

const swallow = () => true;

/** Swallow all that asks for an answer, or acts on the browser. Links (OSC 8) stay: they only open after a question. */
export function swallow_questions(terminal: Terminal): void {
  for (const question of QUESTIONS) terminal.parser.registerCsiHandler(question, swallow);
  for (const question of QUESTION_STRINGS) terminal.parser.registerDcsHandler(question, swallow);
  for (const command of SWALLOWED_COMMANDS) terminal.parser.registerOscHandler(command, swallow);
  terminal.parser.registerEscHandler({ final: "Z" }, swallow);
}

/** What xterm.js does not show in its interface; it throws where a later version has it no more. */
interface Inside {
  _core: { coreService: { onUserInput(react: () => void): void } };
}

/** Hand over only what somebody typed, pasted or pointed at. */
export function when_typed(terminal: Terminal, send: (data: string) => void): void {
  let is_typed = false;
  (terminal as unknown as Inside)._core.coreService.onUserInput(() => (is_typed = true));
  terminal.onData((data) => {
    const is_theirs = is_typed;
    is_typed = false;
    if (is_theirs) send(data);
  });
}
