// AMQP 1.0 values as rhea writes them: a line of JSON, octets in hexadecimal by name.
'use strict';

const { types } = require('rhea');

function written(value) {
    const writer = new types.Writer();
    writer.write(value);
    return writer.toBuffer().toString('hex');
}

const uuid = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
const uint = (value) => new types.Uint(value);
const values = {
    null: new types.Null(), true: new types.True(), false: new types.False(),
    boolean: new types.Boolean(1),
    ubyte: new types.Ubyte(200), ushort: new types.Ushort(50000),
    uint: new types.Uint(4000000000), smalluint: new types.SmallUint(200), uint0: new types.Uint0(),
    ulong: new types.Ulong(0x1122334455667), smallulong: new types.SmallUlong(200),
    ulong0: new types.Ulong0(),
    byte: new types.Byte(-100), short: new types.Short(-20000), int: new types.Int(-2000000000),
    smallint: new types.SmallInt(-100), long: new types.Long(-0x1122334455667),
    smalllong: new types.SmallLong(-100),
    float: new types.Float(1.5), double: new types.Double(-0.1),
    char: new types.CharUTF32(0x1f600), timestamp: new types.Timestamp(1790000000123),
    uuid: new types.Uuid(uuid),
    vbin8: new types.Vbin8(Buffer.from([0, 1, 255])), vbin32: new types.Vbin32(Buffer.from([0, 1, 255])),
    str8: new types.Str8('gr\u00fc\u00df'), str32: new types.Str32('gr\u00fc\u00df'),
    sym8: new types.Sym8('amqp:open:list'), sym32: new types.Sym32('amqp:open:list'),
    list0: new types.List0(), list8: new types.List8([uint(7), new types.Null()]),
    list32: new types.List32([uint(7), new types.Null()]),
    map8: new types.Map8([new types.Sym8('a'), uint(7)]),
    map32: new types.Map32([new types.Sym8('a'), uint(7)]),
    array_of_symbols: types.wrap_array(['PLAIN', 'ANONYMOUS'], 0xa3),
    array_of_uints: types.wrap_array([1, 2, 4000000000], 0x70),
    described: types.wrap_described(types.wrap_list([types.wrap_string('x')]), 0x24),
    described_by_name: types.wrap_described('%.log', 'apache.org:legacy-amqp-topic-binding:string'),
    nested: types.wrap_list([types.wrap_map({ a: types.wrap_list([types.wrap_boolean(true)]) })]),
};

const done = {};
for (const name of Object.keys(values)) {
    done[name] = written(values[name]);
}
console.log(JSON.stringify(done));
