import { Terminal } from "@xterm/xterm";
import { afterEach, beforeEach, expect, test } from "vitest";
import { swallow_questions, when_typed } from "../../src/terminal/quiet";

let terminal: Terminal;
let sent: string[];
let everything: string[];
let titles: string[];

beforeEach(() => {
  terminal = new Terminal({ allowProposedApi: true, cols: 80, rows: 24, logLevel: "off" });
  [sent, everything, titles] = [[], [], []];
  swallow_questions(terminal);
  when_typed(terminal, (data) => sent.push(data));
  terminal.onData((data) => everything.push(data));
  terminal.onTitleChange((title) => titles.push(title));
});

afterEach(() => terminal.dispose());

const written = (data: string) => new Promise<void>((resolve) => terminal.write(data, resolve));

/** What a host may print to make a terminal type, rename the window, write the clipboard, or look like another. */
const HOSTILE: Record<string, string> = {
  "primary device attributes": "\x1b[c\x1b[0c\x9bc",
  "secondary device attributes": "\x1b[>c\x1b[>0c",
  "tertiary device attributes": "\x1b[=c",
  DECID: "\x1bZ",
  "status report": "\x1b[5n",
  "cursor position": "\x1b[6n\x1b[?6n",
  "extended cursor position": "\x1b[?6n\x1b[?15n\x1b[?25n\x1b[?26n\x1b[?53n\x1b[?996n",
  DECRQM: "\x1b[?2004$p\x1b[4$p\x1b[?1$p",
  "DECRQSS of the scroll region": "\x1bP$qr\x1b\\",
  "DECRQSS of the colours": "\x1bP$qm\x1b\\",
  "DECRQSS of the cursor": "\x1bP$q q\x1b\\",
  "DECRQSS of nothing known": "\x1bP$qcalc\x1b\\",
  XTGETTCAP: "\x1bP+q544e\x1b\\",
  XTVERSION: "\x1b[>q\x1b[>0q",
  "title report": "\x1b]0;;rm -rf /;\x07\x1b[21t",
  "icon report": "\x1b]1;id\x07\x1b[20t",
  "title from the stack": "\x1b]2;id\x07\x1b[22t\x1b[23t\x1b[21t",
  "window in pixels": "\x1b[14t\x1b[16t",
  "window in characters": "\x1b[18t\x1b[19t",
  DECREQTPARM: "\x1b[x\x1b[1x",
  "keyboard protocol": "\x1b[?u\x1b[>1u",
  "checksum of the screen": "\x1b[1;1;1;1;1;1*y",
  "palette colour": "\x1b]4;1;?\x07\x1b]4;0;?;1;?\x1b\\",
  "ink, paper, cursor": "\x1b]10;?\x07\x1b]11;?\x07\x1b]12;?\x07\x1b]10;?;?;?\x07",
  "other colours": "\x1b]17;?\x07\x1b]19;?\x07\x1b]5;0;?\x07",
  "clipboard read": "\x1b]52;c;?\x07\x1b]52;p;?\x1b\\",
  "clipboard write": "\x1b]52;c;cm0gLXJmIC8=\x07",
  "answerback": "\x05",
  "focus reports": "\x1b[?1004h",
  "notification": "\x1b]9;hello\x07\x1b]777;notify;a;b\x07\x1b]99;;x\x1b\\",
  "file of iTerm2": "\x1b]1337;File=inline=1:AAAA\x07\x1b]1337;ReportCellSize\x07",
  "8-bit DCS": "\x90$qm\x9c",
  "cut in the middle": "\x1b]52;c;aGVsbG8",
};

for (const [name, bytes] of Object.entries(HOSTILE)) {
  test(`${name}: nothing is typed`, async () => {
    await written(bytes);
    await written("\x18\x1b\\");

    expect(sent).toEqual([]);
  });
}

test("the answers are not even made, but for what is known only to come with the focus", async () => {
  const { "focus reports": _, ...others } = HOSTILE;
  for (const bytes of Object.values(others)) await written(`${bytes}\x18\x1b\\`);

  expect(everything).toEqual([]);
});

test("a host names no window", async () => {
  await written("\x1b]0;web-2: production\x07\x1b]2;other\x1b\\\x1b]1;icon\x07");

  expect(titles).toEqual([]);
});

test("what an emulator would answer of itself goes nowhere, whatever it is", async () => {
  const core = (terminal as unknown as { _core: { coreService: { triggerDataEvent(data: string, is_theirs?: boolean): void } } })._core;

  core.coreService.triggerDataEvent("\x1b[an answer of a later version");
  expect(sent).toEqual([]);
});

test("keys and pasted text go through, also right after a question", async () => {
  await written("\x1b[c\x1b[6n\x1b[?1004h");
  terminal.input("ls\r");
  await written("\x1b[c");
  terminal.input("x", true);

  expect(sent).toEqual(["ls\r", "x"]);
});

test("what is not typed by a person is not sent after something that was", async () => {
  const core = (terminal as unknown as { _core: { coreService: { triggerDataEvent(data: string, is_theirs?: boolean): void } } })._core;
  terminal.input("a");
  core.coreService.triggerDataEvent("\x1b[I");

  expect(sent).toEqual(["a"]);
});

test("what draws still draws", async () => {
  await written("\x1b]0;title\x07\x1b[c\x1b[2;5Hhere\x1b[6n\x1b[31m!");
  const line = terminal.buffer.active.getLine(1)?.translateToString(true);

  expect(line).toBe("    here!");
});
