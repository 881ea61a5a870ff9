"use strict";
// Shows what /openapi.json says. Every text goes in as text, never as markup.

const METHODS = ["get", "post", "put", "patch", "delete"];
const byId = (id) => document.getElementById(id);

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  for (const child of children.flat()) if (child !== null && child !== undefined) element.append(child);
  return element;
}

/** Paragraphs, with what is in backticks as code. */
function prose(text) {
  return (text || "").split(/\n\s*\n/).filter((part) => part.trim()).map((part) =>
    make("p", null, part.split("`").map((piece, index) => (index % 2 ? make("code", null, piece) : piece))));
}

const refName = (schema) => schema.$ref.split("/").pop();

/** A schema's type in few words, with links to named ones. */
function typeOf(schema) {
  if (!schema || Object.keys(schema).length === 0) return ["anything"];
  if (schema.$ref) return [make("a", { href: "#schema-" + refName(schema) }, refName(schema))];
  for (const [key, word] of [["oneOf", " or "], ["anyOf", " or "], ["allOf", " and "]]) {
    if (schema[key]) return schema[key].flatMap((part, index) => (index ? [word, ...typeOf(part)] : typeOf(part)));
  }
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" | ")];
  const types = [].concat(schema.type || []);
  if (types.includes("array")) return ["list of ", ...typeOf(schema.items)];
  return [types.join(" or ") + (schema.format ? " (" + schema.format + ")" : "")];
}

function limitsOf(schema) {
  const known = { pattern: "matches", minimum: "at least", maximum: "at most", minLength: "letters at least", maxLength: "letters at most", default: "default" };
  const parts = Object.keys(known).filter((key) => schema && schema[key] !== undefined)
    .map((key) => make("p", { class: "soft" }, known[key] + " ", make("code", null, String(schema[key]))));
  return parts;
}

function table(caption, heads, rows) {
  return make("table", { tabindex: "0" }, make("caption", null, caption),
    make("thead", null, make("tr", null, heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", null, rows));
}

function row(name, required, schema, description) {
  return make("tr", null,
    make("th", { scope: "row" }, make("code", null, name), required ? make("p", { class: "soft" }, "required") : null),
    make("td", null, typeOf(schema), limitsOf(schema)),
    make("td", null, prose(description || (schema && schema.description))));
}

/** The fields of a schema, those of its parts included. */
function fieldsOf(schema, all, seen = new Set()) {
  if (!schema) return [];
  if (schema.$ref) {
    if (seen.has(schema.$ref)) return [];
    return fieldsOf(all[refName(schema)], all, new Set(seen).add(schema.$ref));
  }
  const own = Object.entries(schema.properties || {}).map(([name, field]) => [name, (schema.required || []).includes(name), field]);
  return (schema.allOf || []).flatMap((part) => fieldsOf(part, all, seen)).concat(own);
}

/** A value that a schema takes. */
function exampleOf(schema, all, depth = 0) {
  if (!schema || depth > 4) return null;
  if (schema.example !== undefined) return schema.example;
  if (schema.$ref) return exampleOf(all[refName(schema)], all, depth + 1);
  if (schema.enum) return schema.enum[0];
  const fields = fieldsOf(schema, all).filter(([, required]) => required);
  if (fields.length) return Object.fromEntries(fields.map(([name, , field]) => [name, exampleOf(field, all, depth + 1)]));
  const types = [].concat(schema.type || []);
  if (types.includes("integer") || types.includes("number")) return schema.minimum || 1;
  if (types.includes("object")) return {};
  return types.includes("string") ? "1" : null;
}

const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

function curlOf(path, method, operation, api) {
  const all = (api.components && api.components.schemas) || {};
  const parameters = operation.parameters || [];
  let address = path;
  for (const parameter of parameters.filter((one) => one.in === "path")) {
    const value = { customer: "42", transaction: "1001", code: "insufficient_funds", name: "NAME" }[parameter.name] || "1";
    address = address.replace("{" + parameter.name + "}", value);
  }
  const required = parameters.filter((one) => one.in === "query" && one.required).map((one) => one.name + "=1");
  const words = ["curl"];
  if (operation.responses && Object.values(operation.responses).some((one) => one.content && one.content["text/event-stream"])) words.push("-N");
  if (method !== "get") words.push("-X " + method.toUpperCase());
  const security = operation.security || api.security || [];
  if (security.some((one) => Object.keys(one).length)) words.push('-H "Authorization: Bearer $KEY"');
  const content = operation.requestBody && operation.requestBody.content;
  if (content) {
    const type = Object.keys(content)[0];
    words.push("-H " + quoted("Content-Type: " + type));
    if (type === "application/json") words.push("-d " + quoted(JSON.stringify(exampleOf(content[type].schema, all))));
    else words.push("--data-binary @FILE");
  }
  words.push(quoted(location.origin + address + (required.length ? "?" + required.join("&") : "")));
  return words.join(" \\\n  ");
}

function contentRows(content) {
  return Object.entries(content || {}).flatMap(([type, media]) => [make("p", null, make("code", null, type), " ", typeOf(media.schema))]);
}

function operationSection(path, method, operation, api) {
  const section = make("section", { id: operation.operationId, "aria-labelledby": operation.operationId + "-head" },
    make("h3", { id: operation.operationId + "-head" }, make("span", { class: "method" }, method.toUpperCase()), make("code", null, path)),
    make("p", null, make("strong", null, (operation.summary || "").trim())),
    prose(operation.description));
  const parameters = operation.parameters || [];
  if (parameters.length) {
    section.append(table("Parameters", ["Name", "Type", "Meaning"], parameters.map((one) =>
      row(one.name + (one.in === "query" ? "" : " (" + one.in + ")"), one.required, one.schema, one.description))));
  }
  if (operation.requestBody) section.append(make("h4", null, "Body"), ...contentRows(operation.requestBody.content));
  section.append(table("Answers", ["Status", "Content", "Meaning"], Object.entries(operation.responses || {}).map(([status, answer]) =>
    make("tr", null, make("th", { scope: "row" }, status), make("td", null, contentRows(answer.content)), make("td", null, prose(answer.description))))));
  section.append(make("h4", null, "Example"), make("pre", { tabindex: "0" }, make("code", null, curlOf(path, method, operation, api))));
  return section;
}

function schemaSection(name, schema, all) {
  const section = make("section", { id: "schema-" + name, "aria-labelledby": "schema-" + name + "-head" },
    make("h3", { id: "schema-" + name + "-head" }, name), prose(schema.description));
  const fields = fieldsOf(schema, all);
  if (fields.length) section.append(table("Fields", ["Name", "Type", "Meaning"], fields.map(([field, required, of]) => row(field, required, of))));
  else section.append(make("p", null, typeOf(schema)), ...limitsOf(schema));
  return section;
}

function show(api) {
  const all = (api.components && api.components.schemas) || {};
  const main = byId("main");
  const entries = [];
  const contents = byId("contents");
  byId("title").textContent = api.info.title;
  byId("version").textContent = "Version " + api.info.version + ", OpenAPI " + api.openapi;
  main.replaceChildren(...prose(api.info.description));
  const list = (title, about, items) => {
    const links = make("ul", null);
    const group = make("div", null, make("h2", null, title), links);
    contents.append(group);
    main.append(make("h2", null, title), ...prose(about));
    for (const [label, section, text] of items) {
      const item = make("li", null, make("a", { href: "#" + section.id }, label));
      links.append(item);
      main.append(section);
      entries.push({ item, group, section, text: text.toLowerCase() });
    }
  };
  const operations = Object.entries(api.paths).flatMap(([path, methods]) =>
    METHODS.filter((method) => methods[method]).map((method) => [path, method, methods[method]]));
  for (const tag of api.tags || []) {
    list(tag.name, tag.description, operations.filter(([, , operation]) => (operation.tags || []).includes(tag.name)).map(([path, method, operation]) =>
      [[make("span", { class: "method" }, method.toUpperCase()), path], operationSection(path, method, operation, api),
        [path, method, operation.operationId, operation.summary, operation.description].join(" ")]));
  }
  list("Schemas", "", Object.keys(all).sort().map((name) => [name, schemaSection(name, all[name], all), name + " " + (all[name].description || "")]));
  const filter = byId("filter");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const entry of entries) {
      const fits = words.every((word) => entry.text.includes(word));
      entry.item.hidden = entry.section.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    for (const { group } of entries) group.hidden = ![...group.querySelectorAll("li")].some((item) => !item.hidden);
    byId("count").textContent = shown + " of " + entries.length;
  };
  filter.addEventListener("input", apply);
  apply();
  // The place named in the address was not there yet when the page came.
  const wanted = location.hash && byId(decodeURIComponent(location.hash.slice(1)));
  if (wanted) wanted.scrollIntoView();
}

fetch("/openapi.json").then((answer) => {
  if (!answer.ok) throw new Error("the service answered " + answer.status);
  return answer.json();
}).then(show).catch((error) => {
  byId("state").textContent = "The document could not be read: " + error.message;
});
