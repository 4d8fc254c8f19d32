// rhea judges the broker: a process that test_rhea.py starts once.
//
// Each line of standard input is JSON: [CASE, URL, NAME, ARGUMENT]. NAME is a queue that is there
// and that nobody else uses. Each is answered by a line of JSON and "passed", or by a stack trace
// and "failed".
'use strict';
const assert = require('node:assert');
const readline = require('node:readline');
const rhea = require('rhea');

const {types} = rhea;
const WAIT = 5000;                     // ms for what has to come
const QUIET = 200;                     // ms for what has not to come
let opened = [];

// The next event of one of these *names*, as [name, context]; others of *fatal* are errors.
function event(emitter, names, fatal = []) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => done(reject, new Error(`no ${names} in time`)), WAIT);
    const listeners = [];
    function done(how, what) {
      clearTimeout(timer);
      for (const [name, listener] of listeners) emitter.removeListener(name, listener);
      how(what);
    }
    for (const name of [names, fatal].flat()) {
      const listener = (context) => {
        if (!fatal.includes(name)) return done(resolve, [name, context]);
        const error = context.error || context.connection.error || name;
        done(reject, new Error(`${name}: ${error.condition || ''} ${error.description || error}`));
      };
      listeners.push([name, listener]);
      emitter.on(name, listener);
    }
  });
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function connect(url, options = {}) {
  const {hostname, port, username, password} = new URL(url);
  const container = rhea.create_container();
  container.on('error', () => {});     // a case that waits for one listens itself
  const connection = container.connect(
      {host: hostname, port, username, password, reconnect: false, ...options});
  opened.push(connection);
  connection.on('disconnected', () => {
    opened = opened.filter((other) => other !== connection);
  });
  await event(connection, 'connection_open', ['connection_error', 'disconnected']);
  return connection;
}

async function sender(parent, target, options = {}) {
  const link = parent.open_sender({target, ...options});
  await event(link, 'sendable', ['sender_error']);
  return link;
}

// Sends and waits for the outcome: its name.
async function send(link, message) {
  link.send(message);
  return (await event(link, ['accepted', 'rejected', 'released', 'modified']))[0];
}

// A receiver whose next(outcome) takes one message and settles it.
async function receiver(parent, source, options = {}) {
  const link = parent.open_receiver({source, credit_window: 0, autoaccept: false, ...options});
  await event(link, 'receiver_open', ['receiver_error']);
  link.next = async (outcome = 'accept', ...how) => {
    const came = event(link, 'message', ['receiver_error']);
    link.add_credit(1);
    const {message, delivery} = (await came)[1];
    if (outcome) delivery[outcome](...how);
    return message;
  };
  // Nothing waits: a drain gives the credit back.
  link.nothing = async () => {
    link.drain = true;
    link.add_credit(1);
    const [name] = await event(link, ['receiver_drained', 'message']);
    assert.strictEqual(name, 'receiver_drained');
    link.drain = false;
  };
  return link;
}

async function condition(link, event_name) {
  const [, context] = await event(link, event_name);
  const {error} = context.sender || context.receiver;
  return error.condition;
}

const queue = (name) => `/queues/${name}`;

const FIELDS = {
  durable: true, priority: 6, ttl: 60000,
  message_id: 'm-1', user_id: Buffer.from('guest'), subject: 's', reply_to: '/queues/answers',
  correlation_id: 'c-1', content_type: 'text/plain', content_encoding: 'utf-8',
  absolute_expiry_time: 4000000000000, creation_time: 1700000000123, group_id: 'g',
  group_sequence: 3, reply_to_group_id: 'r',
  message_annotations: {'x-opt-note': 'n'},
  application_properties: {string: 'gr\u00fc\u00df', number: -5, yes: true, no: false, half: 0.5},
};

const cases = {
  async everyFieldComesAsItWent(url, name) {
    const connection = await connect(url);
    const to = await sender(connection, queue(name));
    assert.strictEqual(await send(to, {...FIELDS, body: {k: [1, 'x', null]}}), 'accepted');
    const got = await (await receiver(connection, queue(name))).next();
    for (const [field, value] of Object.entries(FIELDS)) {
      const found = field.endsWith('_time') ? +got[field] : got[field];
      assert.deepStrictEqual(found, value, field);
    }
    assert.deepStrictEqual(got.body, {k: [1, 'x', null]});
    assert.strictEqual(got.delivery_count || 0, 0);
  },

  async bodies(url, name) {
    const {data_section, data_sections, sequence_section} = rhea.message;
    const connection = await connect(url);
    const to = await sender(connection, queue(name));
    const from = await receiver(connection, queue(name));
    const sent = [
      'text', 5, null, true, [], {a: 'b'}, ['a', {b: 1}], Buffer.from([0, 255]),
      data_section(Buffer.from('octets')), data_sections([Buffer.from('a'), Buffer.from('bc')]),
      sequence_section([1, 'two']),
    ];
    for (const body of sent) {
      assert.strictEqual(await send(to, {body}), 'accepted');
      assert.deepStrictEqual((await from.next()).body, body);
    }
    await from.nothing();
  },

  async longBodyInSmallFrames(url, name, largest) {
    const body = Buffer.alloc(largest, 'some octets ');
    const small = await connect(url, {max_frame_size: 512});
    const to = await sender(small, queue(name));
    assert.strictEqual(await send(to, {body: rhea.message.data_section(body)}), 'accepted');
    const got = await (await receiver(small, queue(name))).next();
    assert.ok(body.equals(got.body.content));
  },

  async outcomes(url, name) {
    const connection = await connect(url);
    const to = await sender(connection, queue(name));
    await send(to, {body: 'a'});
    const from = await receiver(connection, queue(name));
    await from.next('release');
    let got = await from.next('modified', {delivery_failed: true});
    assert.strictEqual(got.delivery_count || 0, 0);
    got = await from.next('release', {delivery_failed: true});
    assert.strictEqual(got.delivery_count, 1);
    got = await from.next('reject');
    assert.strictEqual(got.delivery_count, 2);
    await from.nothing();
    await send(to, {body: 'b'});
    await from.next('modified', {undeliverable_here: true});
    await from.nothing();
    await send(to, {body: 'c'});
    await from.next(null);
    from.session.close();
    const other = await receiver(await connect(url), queue(name));
    assert.strictEqual((await other.next()).body, 'c');
  },

  async creditIsWhatComes(url, name) {
    const connection = await connect(url);
    const to = await sender(connection, queue(name));
    for (let k = 0; k < 6; k++) await send(to, {body: k});
    const from = await receiver(connection, queue(name));
    const bodies = [];
    from.on('message', ({message, delivery}) => {
      bodies.push(message.body);
      delivery.accept();
    });
    from.add_credit(2);
    await pause(QUIET);
    assert.deepStrictEqual(bodies, [0, 1]);
    from.drain = true;
    from.add_credit(100);
    await event(from, 'receiver_drained');
    assert.deepStrictEqual(bodies, [0, 1, 2, 3, 4, 5]);
    assert.strictEqual(from.credit, 0);
  },

  async thousandUnderWay(url, name) {
    // On one connection: settlements must not be stuck behind messages that a full board lets wait.
    const connection = await connect(url);
    const from = await receiver(connection, queue(name), {credit_window: 10, autoaccept: true});
    const bodies = [];
    from.on('message', ({message}) => bodies.push(message.body));
    const to = connection.open_sender({target: queue(name)});
    let sent = 0;
    let accepted = 0;
    await new Promise((resolve, reject) => {
      to.on('sendable', () => {
        while (to.sendable() && sent < 1000) to.send({body: sent++});
      });
      to.on('accepted', () => {
        if (++accepted === 1000) resolve();
      });
      for (const name of ['rejected', 'released', 'modified', 'sender_error']) {
        to.on(name, () => reject(new Error(name)));
      }
    });
    while (bodies.length < 1000) await event(from, 'message');
    assert.deepStrictEqual(bodies, [...Array(1000).keys()]);
  },

  async presettled(url, name) {
    const connection = await connect(url);
    const to = await sender(connection, queue(name), {snd_settle_mode: 1});
    for (let k = 0; k < 3; k++) assert.ok(to.send({body: k}).settled);
    const from = await receiver(connection, queue(name), {snd_settle_mode: 1});
    for (let k = 0; k < 3; k++) assert.strictEqual((await from.next(null)).body, k);
    from.close();
    await event(from, 'receiver_close');
    await (await receiver(connection, queue(name))).nothing();
  },

  async sessions(url, name) {
    const connection = await connect(url);
    const links = [];
    for (let k = 0; k < 2; k++) {
      const session = connection.create_session();
      session.begin();
      links.push(await sender(session, queue(name)), await receiver(session, queue(name)));
    }
    await send(links[0], {body: 'a'});
    await send(links[2], {body: 'b'});
    assert.strictEqual((await links[3].next()).body, 'a');
    links[2].session.close();
    await event(links[2].session, 'session_close');
    assert.strictEqual((await links[1].next()).body, 'b');
  },

  async anonymousTerminus(url, name) {
    const connection = await connect(url);
    const anyone = await sender(connection, {});
    assert.strictEqual(await send(anyone, {to: queue(name), body: 'a'}), 'accepted');
    assert.notStrictEqual(await send(anyone, {to: queue(`${name}-nothing`), body: 'b'}), 'accepted');
    assert.strictEqual(await send(anyone, {to: name, body: 'c'}), 'accepted');
    const from = await receiver(connection, queue(name));
    assert.strictEqual((await from.next()).body, 'a');
    assert.strictEqual((await from.next()).body, 'c');
  },

  async requestAndResponse(url, name) {
    const service = await connect(url);
    const requests = await receiver(service, queue(name));
    const answering = await sender(service, {});
    const client = await connect(url);
    const answers = await receiver(client, {dynamic: true});
    const asking = await sender(client, queue(name));
    const reply_to = answers.source.address;
    for (let k = 0; k < 3; k++) {
      assert.strictEqual(await send(asking, {message_id: k, reply_to, body: `q${k}`}), 'accepted');
      const {message_id, reply_to: to, body} = await requests.next();
      const answer = {to, correlation_id: message_id, body: `${body} is answered`};
      assert.strictEqual(await send(answering, answer), 'accepted');
      const got = await answers.next();
      assert.deepStrictEqual([got.correlation_id, got.body], [k, `q${k} is answered`]);
    }
    answers.close();
    await event(answers, 'receiver_close');
    assert.notStrictEqual(await send(answering, {to: reply_to, body: 'late'}), 'accepted');
  },

  async topic(url, name) {
    const connection = await connect(url);
    const one = await receiver(connection, `/exchange/amq.topic/${name}.*`);
    const other = await receiver(connection, `/topic/${name}.#`);
    const to = await sender(connection, `/exchanges/amq.topic/${name}.heat`);
    assert.strictEqual(await send(to, {body: 'hot'}), 'accepted');
    assert.strictEqual((await one.next()).body, 'hot');
    assert.strictEqual((await other.next()).body, 'hot');
    const nowhere = await sender(connection, `/exchanges/amq.direct/${name}`);
    assert.strictEqual(await send(nowhere, {body: 'x'}), 'released');
  },

  async selector(url, name) {
    const connection = await connect(url);
    const to = await sender(connection, queue(name));
    for (const color of ['red', 'blue', 'red']) {
      await send(to, {application_properties: {color}, body: color});
    }
    const filter = rhea.filter.selector("color = 'blue'");
    const blue = await receiver(connection, {address: queue(name), filter});
    assert.strictEqual((await blue.next()).body, 'blue');
    blue.close();
    await event(blue, 'receiver_close');
    const all = await receiver(connection, queue(name));
    assert.strictEqual((await all.next()).body, 'red');
    assert.strictEqual((await all.next()).body, 'red');
  },

  async durableSubscription(url, name) {
    const source = {address: `/topic/${name}`, durable: 2, expiry_policy: 'never'};
    const to = await sender(await connect(url), `/exchanges/amq.topic/${name}`);
    const subscribe = async () => {
      const connection = await connect(url, {container_id: name});
      return receiver(connection, source, {name: 'sub'});
    };
    let from = await subscribe();
    await send(to, {body: 'a'});
    assert.strictEqual((await from.next()).body, 'a');
    from.detach();
    await event(from, 'receiver_close');
    from.connection.close();
    await event(from.connection, 'connection_close');
    assert.strictEqual(await send(to, {body: 'b'}), 'accepted');
    from = await subscribe();
    assert.strictEqual((await from.next()).body, 'b');
    from.close();
    await event(from, 'receiver_close');
    assert.strictEqual(await send(to, {body: 'c'}), 'released');
  },

  async browse(url, name) {
    const connection = await connect(url);
    const to = await sender(connection, queue(name));
    for (const body of ['a', 'b']) await send(to, {body});
    const look = await receiver(connection, {address: queue(name), distribution_mode: 'copy'});
    assert.strictEqual((await look.next()).body, 'a');
    assert.strictEqual((await look.next()).body, 'b');
    await look.nothing();
    const from = await receiver(connection, queue(name));
    assert.strictEqual((await from.next()).body, 'a');
    assert.strictEqual((await from.next()).body, 'b');
  },

  async unknownAddress(url, name) {
    const connection = await connect(url);
    const to = connection.open_sender(queue(`${name}-nothing`));
    assert.strictEqual(await condition(to, 'sender_error'), 'amqp:not-found');
    const from = connection.open_receiver(queue(`${name}-nothing`));
    assert.strictEqual(await condition(from, 'receiver_error'), 'amqp:not-found');
    assert.strictEqual(await send(await sender(connection, queue(name)), {body: 'a'}), 'accepted');
  },

  async wrongPassword(url) {
    await assert.rejects(connect(url, {password: 'wrong'}), /amqp:unauthorized-access/);
    await connect(url);
  },

  // --- one half, the other is pika ---

  async sendOne(url, name, message) {
    for (const field of ['message_id', 'correlation_id']) {
      const value = message[field];
      if (value && value.uuid) message[field] = types.wrap_uuid(Buffer.from(value.uuid, 'hex'));
      if (value && value.ulong) message[field] = types.wrap_ulong(value.ulong);
      if (value && value.binary) message[field] = Buffer.from(value.binary, 'hex');
    }
    if (message.user_id) message.user_id = Buffer.from(message.user_id);
    if (message.data) message.body = rhea.message.data_section(Buffer.from(message.data));
    const to = await sender(await connect(url), queue(name));
    assert.strictEqual(await send(to, message), 'accepted');
  },

  async receiveOne(url, name) {
    const got = await (await receiver(await connect(url), queue(name))).next();
    const body = got.body && got.body.typecode === 0x75 ? String(got.body.content) : got.body;
    for (const field of ['message_id', 'correlation_id', 'user_id']) {
      if (Buffer.isBuffer(got[field])) got[field] = got[field].toString('hex');
    }
    if (got.creation_time !== undefined) got.creation_time = +got.creation_time;
    return {...got, body};
  },

  async service(url, name, count) {
    const connection = await connect(url);
    const requests = await receiver(connection, queue(name));
    const answering = await sender(connection, {});
    for (let k = 0; k < count; k++) {
      const {reply_to: to, correlation_id, body} = await requests.next();
      const question = body.content ? String(body.content) : body;
      const answer = {to, correlation_id, body: rhea.message.data_section(
          Buffer.from(`${question} is answered`))};
      assert.strictEqual(await send(answering, answer), 'accepted');
    }
  },

  async client(url, name, count) {
    const connection = await connect(url);
    const answers = await receiver(connection, {dynamic: true});
    const asking = await sender(connection, queue(name));
    const got = [];
    for (let k = 0; k < count; k++) {
      const body = rhea.message.data_section(Buffer.from(`q${k}`));
      const reply_to = answers.source.address;
      await send(asking, {correlation_id: `c${k}`, reply_to, body});
      const answer = await answers.next();
      got.push([answer.correlation_id, String(answer.body.content)]);
    }
    return got;
  },
};

async function run(line) {
  const [chosen, url, name, argument] = JSON.parse(line);
  let answered;
  try {
    const answer = await cases[chosen](url, name, argument);
    answered = `${JSON.stringify(answer === undefined ? null : answer)}\npassed`;
  } catch (error) {
    answered = `${error.stack}\nfailed`;
  }
  for (const connection of opened) {
    if (connection.is_closed()) continue;
    connection.close();
    await event(connection, ['connection_close', 'disconnected']).catch(() => {});
  }
  opened = [];
  console.log(answered);
}

(async () => {
  for await (const line of readline.createInterface({input: process.stdin})) await run(line);
  process.exit(0);
})();
