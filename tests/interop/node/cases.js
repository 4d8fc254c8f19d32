// amqplib judges the broker. One case per process:  node cases.js CASE URL NAME LARGEST
//   NAME     a name nobody else uses, for queues and exchanges (deleted by the case)
//   LARGEST  octets of the longest body to send
// Exit code 0 when the case holds; otherwise the reason is on stderr.
'use strict';
const assert = require('node:assert');
const amqp = require('amqplib');
const callbacks = require('amqplib/callback_api');

const [, , chosen, url, name, largest] = process.argv;

// Reads deliveries one by one: `const next = await consumer(channel, queue)`, then `await next()`.
async function consumer(channel, queue, options) {
  const waiting = [];
  const readers = [];
  const {consumerTag} = await channel.consume(queue, (message) => {
    if (readers.length) readers.shift()(message);
    else waiting.push(message);
  }, options);
  const next = () => new Promise((resolve) => {
    if (waiting.length) resolve(waiting.shift());
    else readers.push(resolve);
  });
  next.tag = consumerTag;
  next.waiting = waiting;
  return next;
}

// The reply code with which the broker closes a fresh channel after `attempt(channel)`.
async function closes(connection, attempt) {
  const channel = await connection.createChannel();
  const closed = new Promise((resolve) => channel.on('error', resolve));
  await assert.rejects(async () => {
    await attempt(channel);
    await channel.checkExchange('');          // for attempts without an answer of their own
  });
  return (await closed).code;
}

const cases = {
  async publishConsumeAck(connection) {
    const channel = await connection.createChannel();
    const {queue} = await channel.assertQueue('', {exclusive: true});
    await channel.assertExchange(name, 'topic', {durable: false, autoDelete: true});
    await channel.bindQueue(queue, name, 'sensor.#');
    const next = await consumer(channel, queue);
    for (let n = 0; n < 5; n++) {
      channel.publish(name, `sensor.${n}`, Buffer.from(`reading ${n}`),
                      {persistent: true, messageId: `m${n}`,
                       headers: {n, deep: {list: [n, 'x', true]}}});
    }
    for (let n = 0; n < 5; n++) {
      const message = await next();
      assert.strictEqual(message.content.toString(), `reading ${n}`);
      assert.strictEqual(message.fields.routingKey, `sensor.${n}`);
      assert.strictEqual(message.fields.redelivered, false);
      assert.strictEqual(message.properties.messageId, `m${n}`);
      assert.strictEqual(message.properties.deliveryMode, 2);
      assert.deepStrictEqual(message.properties.headers, {n, deep: {list: [n, 'x', true]}});
      channel.ack(message);
    }
    await channel.cancel(next.tag);
    assert.deepStrictEqual(await channel.deleteQueue(queue), {messageCount: 0});
  },

  async confirmsAndReturns(connection) {
    const channel = await connection.createConfirmChannel();
    const events = [];
    channel.on('return', ({fields, content}) => {
      events.push(['return', fields.replyCode, content.toString()]);
    });
    const {queue} = await channel.assertQueue('', {
      exclusive: true, arguments: {'x-max-length': 2, 'x-overflow': 'reject-publish'},
    });
    const publish = (key, body, options) => new Promise((resolve) => {
      channel.publish('', key, Buffer.from(body), options, (error) => {
        events.push(error ? 'nack' : 'ack');
        resolve();
      });
    });
    await publish('there-is-no-such-queue', 'back', {mandatory: true});
    for (const body of ['1', '2', '3']) await publish(queue, body, {mandatory: true});
    assert.deepStrictEqual(events, [['return', 312, 'back'], 'ack', 'ack', 'ack', 'nack']);
    channel.sendToQueue('there-is-no-such-queue', Buffer.from('dropped'));
    await channel.waitForConfirms();
  },

  async getAndRequeue(connection) {
    const channel = await connection.createChannel();
    const {queue} = await channel.assertQueue('', {exclusive: true});
    assert.strictEqual(await channel.get(queue), false);
    for (const body of ['1', '2', '3']) channel.sendToQueue(queue, Buffer.from(body));
    const [first, second] = [await channel.get(queue), await channel.get(queue)];
    assert.strictEqual(first.fields.messageCount, 2);
    channel.nack(second, false, true);
    channel.reject(first, false);
    const again = await channel.get(queue);
    assert.deepStrictEqual([again.content.toString(), again.fields.redelivered], ['2', true]);
    await channel.recover();
    assert.strictEqual((await channel.get(queue)).content.toString(), '2');
    assert.strictEqual((await channel.get(queue)).content.toString(), '3');
    channel.ackAll();
    assert.deepStrictEqual(await channel.purgeQueue(queue), {messageCount: 0});
  },

  async prefetch(connection) {
    const channel = await connection.createChannel();
    const {queue} = await channel.assertQueue('', {exclusive: true});
    for (let n = 0; n < 6; n++) channel.sendToQueue(queue, Buffer.from(String(n)));
    await channel.prefetch(2);
    const first = await consumer(channel, queue);
    const second = await consumer(channel, queue);
    const held = [await first(), await first(), await second(), await second()];
    assert.strictEqual((await channel.checkQueue(queue)).messageCount, 2);
    assert.strictEqual(first.waiting.length + second.waiting.length, 0);
    channel.ack(held[1], true);
    assert.strictEqual((await first()).content.toString(), '4');
  },

  async bodySizes(connection) {
    const channel = await connection.createChannel();
    const {queue} = await channel.assertQueue('', {exclusive: true});
    const next = await consumer(channel, queue, {noAck: true});
    for (const size of [0, 1, 4088, 4089, Number(largest)]) {
      const body = Buffer.alloc(Math.min(size, Number(largest)), 'abc');
      channel.sendToQueue(queue, body);
      assert.ok((await next()).content.equals(body), `${size} octets`);
    }
  },

  async replyTo(connection) {
    const asking = await connection.createChannel();
    const serving = await connection.createChannel();
    const {queue} = await serving.assertQueue(name, {autoDelete: true, durable: false});
    await serving.consume(queue, (request) => {
      const {replyTo, correlationId} = request.properties;
      const answer = request.content.toString().toUpperCase();
      serving.sendToQueue(replyTo, Buffer.from(answer), {correlationId});
      serving.ack(request);
    });
    const next = await consumer(asking, 'amq.rabbitmq.reply-to', {noAck: true});
    asking.sendToQueue(queue, Buffer.from('question'),
                       {replyTo: 'amq.rabbitmq.reply-to', correlationId: '7'});
    const answer = await next();
    assert.strictEqual(answer.content.toString(), 'QUESTION');
    assert.strictEqual(answer.properties.correlationId, '7');
  },

  async aDeletedQueueCancelsItsConsumer(connection) {
    const channel = await connection.createChannel();
    await channel.assertQueue(name, {durable: false});
    const next = await consumer(channel, name);
    await (await connection.createChannel()).deleteQueue(name);
    assert.strictEqual(await next(), null);          // how amqplib tells of basic.cancel
  },

  async exchangeBindings(connection) {
    const channel = await connection.createChannel();
    await channel.assertExchange(name, 'fanout', {durable: false});
    await channel.assertExchange(name + '-2', 'direct', {durable: false, alternateExchange: name});
    const {queue} = await channel.assertQueue('', {exclusive: true});
    await channel.bindQueue(queue, name, '');
    await channel.bindExchange(name, name + '-2', 'key');
    channel.publish(name + '-2', 'key', Buffer.from('bound'));
    await channel.unbindExchange(name, name + '-2', 'key');
    channel.publish(name + '-2', 'key', Buffer.from('alternate'));
    assert.strictEqual((await channel.get(queue, {noAck: true})).content.toString(), 'bound');
    assert.strictEqual((await channel.get(queue, {noAck: true})).content.toString(), 'alternate');
    await channel.deleteExchange(name + '-2');
    await channel.deleteExchange(name);
  },

  async errorsCloseTheChannelOnly(connection) {
    const channel = await connection.createChannel();
    await channel.assertQueue(name, {exclusive: true});
    const attempts = [
      [404, (ch) => ch.checkQueue('there-is-no-such-queue')],
      [403, (ch) => ch.assertQueue('amq.mine')],
      [406, (ch) => ch.assertQueue(name, {exclusive: true, maxLength: 3})],
      [404, (ch) => ch.publish('there-is-no-such-exchange', '', Buffer.from('x'))],
      [406, (ch) => ch.ack({fields: {deliveryTag: 9}})],
    ];
    for (const [code, attempt] of attempts) {
      assert.strictEqual(await closes(connection, attempt), code, String(attempt));
    }
    const other = await amqp.connect(url);
    assert.strictEqual(await closes(other, (ch) => ch.checkQueue(name)), 405);
    await other.close();
    assert.strictEqual((await channel.checkQueue(name)).queue, name);
  },

  async aWrongPasswordIs403() {
    const wrong = new URL(url);
    wrong.password = 'wrong';
    await assert.rejects(amqp.connect(wrong.href), /403 \(ACCESS-REFUSED\)/);
    await (await amqp.connect(url)).close();
  },

  async heartbeatsGoBothWays() {
    const connection = await amqp.connect(url + '?heartbeat=1');
    const channel = await connection.createChannel();
    let failed = null;
    connection.on('error', (error) => { failed = error; });
    // Either side gives up after two missed heartbeats: longer than that.
    await new Promise((resolve) => setTimeout(resolve, 3500));
    assert.strictEqual(failed, null);
    await channel.assertQueue('', {exclusive: true});
    await connection.close();
  },

  callbackApi() {
    return new Promise((resolve, reject) => {
      const check = (then) => (error, value) => (error ? reject(error) : then(value));
      callbacks.connect(url, check((connection) => {
        connection.createConfirmChannel(check((channel) => {
          channel.assertQueue('', {exclusive: true}, check(({queue}) => {
            channel.consume(queue, (message) => {
              assert.strictEqual(message.content.toString(), 'hello');
              channel.ack(message);
              connection.close(check(resolve));
            }, {}, check(() => channel.sendToQueue(queue, Buffer.from('hello'))));
          }));
        }));
      }));
    });
  },
};

async function main() {
  if (chosen === 'list') {
    console.log(Object.keys(cases).join('\n'));
    return;
  }
  const connection = await amqp.connect(url);
  await cases[chosen](connection);
  await connection.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
