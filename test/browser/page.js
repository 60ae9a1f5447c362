// What runs in the browser: the clients that consoles and login pages use, against one gateway. run() returns a list of
// {name, fault}; fault is empty where the client saw what it should.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { GrpcWebClientBase, MethodDescriptor, MethodType } from "grpc-web";

import {
  CountRequestSchema, CountResponseSchema, EchoRequestSchema, EchoResponseSchema, StreamService,
} from "./gen/execgate/demo/v1/stream_pb.js";
import { UserService } from "./gen/zitadel/user/v2/user_service_pb.js";
import { AddHumanUserRequestSchema, AddHumanUserResponseSchema } from "./gen/zitadel/user/v2/user_service_pb.js";
import { ErrorDetailSchema } from "./gen/zitadel/v1/error_pb.js";

const transports = {
  "connect json": (baseUrl) => createConnectTransport({ baseUrl }),
  "connect binary": (baseUrl) => createConnectTransport({ baseUrl, useBinaryFormat: true }),
  "connect get": (baseUrl) => createConnectTransport({ baseUrl, useHttpGet: true }),
  "grpc-web": (baseUrl) => createGrpcWebTransport({ baseUrl }),
};

const ada = {
  username: "ada",
  profile: { givenName: "Ada", familyName: "Lovelace" },
  email: { email: "ada@example.com" },
};

function equal(got, want) {
  const g = JSON.stringify(got), w = JSON.stringify(want);
  if (g !== w) throw new Error(`got ${g}, want ${w}`);
}

// failure returns what a script can see of the error that call ends with.
async function failure(call) {
  try {
    await call();
  } catch (err) {
    const e = ConnectError.from(err);
    return { code: Code[e.code], message: e.rawMessage, ids: e.findDetails(ErrorDetailSchema).map((d) => d.id) };
  }
  throw new Error("the call succeeded");
}

async function collect(stream, numbers = []) {
  for await (const m of stream) numbers.push(m.number);
  return numbers;
}

const veto = { code: "PermissionDenied", message: "not from a browser (EXEC-reUaUZCzCp)", ids: ["EXEC-reUaUZCzCp"] };

// connectChecks are those of @connectrpc/connect-web, one transport at a time.
function connectChecks(transport) {
  const streams = createClient(StreamService, transport);
  const users = createClient(UserService, transport);
  return {
    "a request and its answer are rewritten": async () => {
      const res = await streams.echo({ text: "ada", number: 7n });
      equal([res.echo.text, res.echo.words, Number(res.echo.number)], ["ada, asked", ["answered"], 7]);
    },
    "a method without side effects": async () => {
      const res = await streams.peek({ text: "a&b ü" });
      equal(res.echo.text, "a&b ü, asked");
    },
    "nothing matches": async () => {
      const res = await streams.blob({ data: new Uint8Array([1, 2, 3]), size: 5n });
      equal([Number(res.received), [...res.data]], [3, [0, 1, 2, 3, 4]]);
    },
    "a server stream passes": async () => {
      equal(await collect(streams.count({ to: 3 })), [10, 20, 30]);
    },
    "a message of a stream is vetoed": async () => {
      const numbers = [];
      equal(await failure(() => collect(streams.count({ to: 13 }), numbers)), veto);
      equal(numbers, [10, 20]);
    },
    "a veto": async () => equal(await failure(() => users.addHumanUser(ada)), veto),
    "an error of the upstream, unmatched": async () => {
      equal(await failure(() => streams.fail({ code: 5, message: "nobody here: ü%" })),
        { code: "NotFound", message: "nobody here: ü%", ids: [] });
    },
    "an error of the upstream, matched": async () => {
      const e = await failure(() => users.getUserByID({ userId: "404" }));
      equal([e.code, e.ids.length, e.message.includes(e.ids[0])], ["NotFound", 1, true]);
    },
  };
}

// textChecks are those of grpc-web, which speaks the text form.
function textChecks(baseUrl) {
  const client = new GrpcWebClientBase({ format: "text" });
  const method = (name, type, input, output) => new MethodDescriptor(name, type, Object, Object,
    (m) => toBinary(input, m), (b) => fromBinary(output, b));
  const echo = method("/execgate.demo.v1.StreamService/Echo", MethodType.UNARY, EchoRequestSchema, EchoResponseSchema);
  const count = method("/execgate.demo.v1.StreamService/Count", MethodType.SERVER_STREAMING, CountRequestSchema, CountResponseSchema);
  const addUser = method("/zitadel.user.v2.UserService/AddHumanUser", MethodType.UNARY, AddHumanUserRequestSchema, AddHumanUserResponseSchema);
  const call = (m, message) => client.unaryCall(baseUrl + m.getName(), message, {}, m);
  const counted = (to) => new Promise((resolve) => {
    const numbers = [];
    let ended = { code: 0, message: "" };
    client.serverStreaming(baseUrl + count.getName(), create(CountRequestSchema, { to }), {}, count)
      .on("data", (m) => numbers.push(m.number))
      .on("error", (e) => { ended = { code: e.code, message: e.message }; resolve({ numbers, ...ended }); })
      .on("end", () => resolve({ numbers, ...ended }));
  });
  return {
    "a request and its answer are rewritten": async () => {
      const res = await call(echo, create(EchoRequestSchema, { text: "ada" }));
      equal([res.echo.text, res.echo.words], ["ada, asked", ["answered"]]);
    },
    "a server stream passes": async () => equal(await counted(3), { numbers: [10, 20, 30], code: 0, message: "" }),
    "a message of a stream is vetoed": async () => equal(await counted(13), { numbers: [10, 20], code: 7, message: veto.message }),
    "a veto": async () => {
      const e = await call(addUser, create(AddHumanUserRequestSchema, ada)).then(() => ({}), (e) => e);
      equal([e.code, e.message], [7, veto.message]);
    },
  };
}

// refusedChecks are for a page whose origin may not call: the browser keeps the answer from the script.
function refusedChecks(baseUrl) {
  const checks = {};
  for (const [name, transport] of Object.entries(transports)) {
    const client = createClient(StreamService, transport(baseUrl));
    checks[`${name} is refused to a page of another origin`] = async () => {
      const e = await failure(() => client.echo({ text: "ada" }));
      if (!/Failed to fetch/.test(e.message)) throw new Error(`got ${JSON.stringify(e)}`);
    };
  }
  return checks;
}

function allChecks(baseUrl) {
  const checks = {};
  const add = (prefix, some) => {
    for (const [name, check] of Object.entries(some)) checks[`${prefix}: ${name}`] = check;
  };
  for (const [name, transport] of Object.entries(transports)) add(name, connectChecks(transport(baseUrl)));
  add("grpc-web text", textChecks(baseUrl));
  return checks;
}

window.run = async (baseUrl, refused) => {
  const results = [];
  for (const [name, check] of Object.entries(refused ? refusedChecks(baseUrl) : allChecks(baseUrl))) {
    let fault = "";
    try {
      await check();
    } catch (err) {
      fault = String(err?.message ?? err);
    }
    results.push({ name, fault });
  }
  return results;
};
