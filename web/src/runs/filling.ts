// A saved command with its {{parameters}}, and the values for them: each becomes one quoted word of the shell. Pure.
//
// A quoted word is only safe where the shell reads words. Inside quotes, comments, here-documents, arithmetic or after a
// `$` or a backslash the same text would be read in another way, so a parameter there is a mistake of the saved command.

import type { Parameter } from "./calls";

const PLACEHOLDER = /\{\{([A-Za-z][A-Za-z0-9_]{0,31})\}\}/g;
/** The same, exactly where one looks. */
const PLACEHOLDER_HERE = new RegExp(PLACEHOLDER.source, "y");
const SAFE = /^[A-Za-z0-9_@%+:,./-]+$/;

export type Misplaced = "quotes" | "comment" | "document" | "arithmetic" | "expansion";

/** The names of the parameters in a command, each once, in the order in which they appear. */
export function names_in(command: string): string[] {
  return [...new Set([...command.matchAll(PLACEHOLDER)].map(([, name]) => name as string))];
}

/** A value as one word that every POSIX shell reads back unchanged. */
export function quoted(value: string): string {
  return SAFE.test(value) ? value : `'${value.replaceAll("'", `'\\''`)}'`;
}

/** Does this value match, all of it? A pattern that does not compile matches nothing. */
export function fits(value: string, pattern: string | null): boolean {
  if (value.includes("\0")) return false;
  if (!pattern) return true;
  return regular(`^(?:${pattern})$`)?.test(value) ?? false;
}

/** A pattern compiled, or null. The console reads escapes such as `\_` that only the older syntax of browsers allows. */
export function regular(pattern: string): RegExp | null {
  for (const flags of ["u", ""]) {
    try {
      return new RegExp(pattern, flags);
    } catch {
      // The other syntax may know it.
    }
  }
  return null;
}

/** The values that do not fit their parameters, by name. */
export function misfits(parameters: readonly Parameter[], values: Readonly<Record<string, string>>): string[] {
  return parameters.filter(({ name, pattern }) => !fits(values[name] ?? "", pattern)).map(({ name }) => name);
}

/** The command with every parameter replaced by its quoted value. */
export function filled(command: string, values: Readonly<Record<string, string>>): string {
  return command.replace(PLACEHOLDER, (_, name: string) => quoted(values[name] ?? ""));
}

/** Parameters that stand where a quoted word would not be read as one, and why. */
export function misplaced(command: string): { name: string; why: Misplaced }[] {
  const found: { name: string; why: Misplaced }[] = [];
  const stack: Context[] = ["words"];
  let word_begins = true;
  let document = false;
  for (let at = 0; at < command.length; ) {
    const context = stack.at(-1) as Context;
    const placeholder = placeholder_at(command, at);
    if (placeholder) {
      const why = WHY[context] ?? (document ? "document" : "$\\".includes(command[at - 1] ?? " ") ? "expansion" : null);
      if (why) found.push({ name: placeholder[1] as string, why });
      at += placeholder[0].length;
      word_begins = false;
      continue;
    }
    let { step, push, pop } = read(command, at, context, word_begins);
    // What is two characters long must not hide a parameter that begins with the second.
    if (step === 2 && placeholder_at(command, at + 1)) ({ step, push, pop } = { step: 1 } as Read);
    if (pop) stack.pop();
    if (push) stack.push(push);
    if (context === "words" && command.startsWith("<<", at)) {
      if (command[at + 2] !== "<") document = true;
      at += command[at + 2] === "<" ? 3 : 2;
      continue;
    }
    word_begins = /[\s;&|()<>]/.test(command[at + step - 1] ?? "");
    at += step;
  }
  return found;
}

function placeholder_at(command: string, at: number): RegExpExecArray | null {
  PLACEHOLDER_HERE.lastIndex = at;
  return PLACEHOLDER_HERE.exec(command);
}

type Context = "words" | "single" | "double" | "ansi" | "backtick" | "comment" | "arithmetic" | "braces" | "brackets";

const WHY: Partial<Record<Context, Misplaced>> = {
  single: "quotes",
  double: "quotes",
  ansi: "quotes",
  backtick: "quotes",
  comment: "comment",
  arithmetic: "arithmetic",
  brackets: "arithmetic",
  braces: "expansion",
};

interface Read {
  step: number;
  push?: Context;
  pop?: boolean;
}

/** What the text at `at` does to the context. Everything inside double quotes stays in them: that refuses more, never less. */
function read(text: string, at: number, context: Context, word_begins: boolean): Read {
  const here = text[at];
  if (context === "single") return { step: 1, pop: here === "'" };
  if (context === "comment") return { step: 1, pop: here === "\n" };
  if (here === "\\") return { step: 2 };
  if (context === "ansi") return { step: 1, pop: here === "'" };
  if (context === "double") return { step: 1, pop: here === '"' };
  if (context === "backtick") return { step: 1, pop: here === "`" };
  if (context === "brackets") return { step: 1, pop: here === "]" };
  if (context === "braces") return { step: 1, pop: here === "}" };
  if (context === "arithmetic") return text.startsWith("))", at) ? { step: 2, pop: true } : { step: 1 };
  if (here === "'") return { step: 1, push: "single" };
  if (here === '"') return { step: 1, push: "double" };
  if (here === "`") return { step: 1, push: "backtick" };
  if (text.startsWith("$'", at)) return { step: 2, push: "ansi" };
  if (text.startsWith("${", at)) return { step: 2, push: "braces" };
  // An index is arithmetic, and arithmetic runs the commands in it; `[` after a blank is the command of that name.
  if (here === "[" && /[\w$]/.test(text[at - 1] ?? "")) return { step: 1, push: "brackets" };
  if (text.startsWith("((", at)) return { step: 2, push: "arithmetic" };
  if (here === "#" && word_begins) return { step: 1, push: "comment" };
  return { step: 1 };
}
