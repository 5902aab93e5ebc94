// What the console's own description says of its routes, to hold calls against.

import { readFileSync } from "node:fs";
import { expect } from "vitest";

interface Schema {
  $ref?: string;
  properties?: Record<string, Schema>;
}
interface Operation {
  parameters?: { name: string; in: string }[];
  requestBody?: { content: { "application/json": { schema: Schema } } };
}
interface Description {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
}

export const description = JSON.parse(
  readFileSync(new URL("../../docs/reference/openapi.json", import.meta.url), "utf8"),
) as Description;

/** A request as it was sent: its route is described, with all of its parameters and fields. */
export function expect_described(url: URL, init: RequestInit): void {
  const operation = described(url.pathname, init.method as string);
  const parameters = new Set(operation.parameters?.filter((one) => one.in === "query").map((one) => one.name));
  expect([...url.searchParams.keys()].filter((name) => !parameters.has(name))).toEqual([]);
  if (typeof init.body !== "string") return;
  const schema = resolved(operation.requestBody?.content["application/json"].schema ?? {});
  expect(unknown_fields(JSON.parse(init.body), schema)).toEqual([]);
}

function described(path: string, method: string): Operation {
  for (const [template, operations] of Object.entries(description.paths)) {
    const pattern = new RegExp(`^${template.replace(/\{[^}]+\}/g, "[^/]+")}$`);
    const operation = operations[method.toLowerCase()];
    if (operation && pattern.test(path) && !(template.includes("{") && path in description.paths)) return operation;
  }
  throw new Error(`${method} ${path} is not in the description`);
}

function resolved(schema: Schema): Schema {
  return schema.$ref ? (description.components.schemas[schema.$ref.split("/").at(-1) as string] as Schema) : schema;
}

function unknown_fields(body: Record<string, unknown>, schema: Schema): string[] {
  return Object.entries(body).flatMap(([name, value]) => {
    const known = schema.properties?.[name];
    if (!known) return [name];
    const inner = resolved(known);
    const is_object = typeof value === "object" && value !== null && !Array.isArray(value);
    return is_object && inner.properties ? unknown_fields(value as Record<string, unknown>, inner) : [];
  });
}
