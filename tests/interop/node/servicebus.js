// @azure/service-bus against the broker: node servicebus.js CONNECTION_STRING QUEUE
'use strict';

const assert = require('assert');
const { ServiceBusClient } = require('@azure/service-bus');

const [connection, queue] = process.argv.slice(2);
const options = { retryOptions: { maxRetries: 0, timeoutInMs: 5000 } };

async function take(receiver, count) {
    const found = [];
    while (found.length < count) {  // the first of them end the wait
        found.push(...await receiver.receiveMessages(
            count - found.length, { maxWaitTimeInMs: 5000 }));
    }
    return found;
}

async function main() {
    const client = new ServiceBusClient(connection, options);
    const sender = client.createSender(queue);
    await sender.sendMessages({ body: 'one', messageId: 'm1', applicationProperties: { a: 1 } });
    const batch = await sender.createMessageBatch();
    for (const body of ['two', 'three', 'four', 'five']) {
        assert(batch.tryAddMessage({ body }));
    }
    await sender.sendMessages(batch);
    await sender.sendMessages([{ body: 'six' }, { body: 'seven' }]);

    const receiver = client.createReceiver(queue);
    const peeked = await receiver.peekMessages(10);
    assert.deepStrictEqual(
        peeked.map((m) => m.body), ['one', 'two', 'three', 'four', 'five', 'six', 'seven']);
    const found = await take(receiver, 5);
    assert.deepStrictEqual(found.map((m) => m.body), ['one', 'two', 'three', 'four', 'five']);
    assert.strictEqual(found[0].messageId, 'm1');
    assert.strictEqual(found[0].applicationProperties.a, 1);
    assert.strictEqual(found[0].deliveryCount, 0);
    assert(found[0].lockedUntilUtc > new Date());
    assert(found[1].messageId);
    const until = await receiver.renewMessageLock(found[0]);
    assert(until >= new Date(Date.now() + 30000), until);
    await receiver.completeMessage(found[0]);
    await receiver.abandonMessage(found[1]);
    await receiver.deadLetterMessage(
        found[2], { deadLetterReason: 'why', deadLetterErrorDescription: 'because' });
    await receiver.deferMessage(found[3]);
    const [deferred] = await receiver.receiveDeferredMessages(found[3].sequenceNumber);
    assert.strictEqual(deferred.body, 'four');
    await receiver.completeMessage(deferred);
    await receiver.completeMessage(found[4]);
    const [again] = await take(receiver, 1);
    assert.strictEqual(again.body, 'two');
    assert.strictEqual(again.deliveryCount, 1);
    await receiver.completeMessage(again);
    await receiver.close();

    const dead = client.createReceiver(queue, { subQueueType: 'deadLetter' });
    const [letter] = await take(dead, 1);
    assert.strictEqual(letter.body, 'three');
    assert.strictEqual(letter.deadLetterReason, 'why');
    assert.strictEqual(letter.deadLetterErrorDescription, 'because');
    assert.strictEqual(letter.deadLetterSource, queue);
    await dead.completeMessage(letter);

    const taker = client.createReceiver(queue, { receiveMode: 'receiveAndDelete' });
    assert.deepStrictEqual((await take(taker, 2)).map((m) => m.body), ['six', 'seven']);
    assert.deepStrictEqual(await taker.receiveMessages(1, { maxWaitTimeInMs: 100 }), []);
    await taker.close();

    // What comes from plain clients has no message-id of its own: it is there in the end.
    const plain = client.createReceiver(queue + '-plain');
    const [other] = await take(plain, 1);
    assert.strictEqual(other.body.toString(), 'plain');
    await plain.completeMessage(other);
    await client.close();

    const wrong = new ServiceBusClient(connection.replace(/Key=[^;]*;Use/, 'Key=wrong;Use'), options);
    await assert.rejects(
        wrong.createSender(queue).sendMessages({ body: 'x' }), { code: 'UnauthorizedAccess' });
    await wrong.close();
}

main().then(() => process.exit(0), (error) => {
    console.error(error);
    process.exit(1);
});
