// npm's etcd3 against a server: keys, ranges, transactions, leases, locks, elections, watches, users.
//
// usage: node probe.js URL     prints "ok: N checks", or the check that fails
'use strict';

const assert = require('assert');
const { Etcd3, Role } = require('etcd3');

const hosts = process.argv[2];
let checks = 0;

function check(name, found, expected = true) {
  assert.deepStrictEqual(found, expected, name);
  checks += 1;
}

async function keys(client) {
  await client.put('npm/a').value('one');
  check('get', await client.get('npm/a').string(), 'one');
  check('get nothing', await client.get('npm/none'), null);
  await client.put('npm/b').value(Buffer.from([0, 255, 128]));
  check('bytes', [...(await client.get('npm/b').buffer())], [0, 255, 128]);
  check('prefix', Object.keys(await client.getAll().prefix('npm/').strings()), ['npm/a', 'npm/b']);
  check('sorted', await client.getAll().prefix('npm/').sort('Key', 'Descend').keys(), ['npm/b', 'npm/a']);
  check('count', await client.getAll().prefix('npm/').count(), 2);
  check('exists', await client.get('npm/a').exists());
  const namespace = client.namespace('npm/');
  check('namespace', await namespace.get('a').string(), 'one');
  const first = await client.if('npm/a', 'Value', '==', 'one').then(client.put('npm/c').value('yes')).else(client.get('npm/a')).commit();
  check('transaction', first.succeeded);
  const second = await client.if('npm/a', 'Version', '>', 5).then(client.delete().key('npm/a')).else(client.get('npm/a')).commit();
  check('transaction that fails', second.succeeded, false);
  check('delete', (await client.delete().prefix('npm/')).deleted, '3');
}

async function leases(client) {
  const lease = client.lease(30);
  await lease.put('npm/l').value('x');
  check('a key of a lease', await client.get('npm/l').string(), 'x');
  await lease.keepaliveOnce();
  await lease.revoke();
  check('gone with its lease', await client.get('npm/l'), null);
  const value = await client.lock('npm-lock').do(async () => {
    await assert.rejects(client.lock('npm-lock').acquire());
    return 7;
  });
  check('lock', value, 7);
}

async function watches(client) {
  const watcher = await client.watch().prefix('npm/w').create();
  const seen = new Promise((resolve) => watcher.on('put', (event) => resolve(event.value.toString())));
  await client.put('npm/w1').value('seen');
  check('watch', await seen, 'seen');
  const gone = new Promise((resolve) => watcher.on('delete', (event) => resolve(event.key.toString())));
  await client.delete().key('npm/w1');
  check('watch a delete', await gone, 'npm/w1');
  await watcher.cancel();
}

async function elections(client) {
  const election = client.election('npm-election', 10);
  const campaign = election.campaign('me');
  await new Promise((resolve, reject) => campaign.on('elected', resolve).on('error', reject));
  check('leader', await election.leader(), 'me');
  await campaign.proclaim('me again');
  check('proclaimed', await election.leader(), 'me again');
  await campaign.resign();
}

async function users(client) {
  const role = await client.role('npm-role').create();
  await role.grant({ permission: 'Readwrite', range: client.range ? client.range({ prefix: 'npm/' }) : { start: Buffer.from('npm/'), end: Buffer.from('npm0') } });
  const user = await client.user('npm-user').create('secret');
  await user.addRole(role);
  check('roles of a user', (await user.roles()).map((found) => found.name), ['npm-role']);
  check('roles', (await client.getRoles()).some((found) => found instanceof Role && found.name === 'npm-role'));
  await user.delete();
  await role.delete();
}

async function main() {
  const client = new Etcd3({ hosts });
  try {
    await keys(client);
    await leases(client);
    await watches(client);
    await elections(client);
    await users(client);
    check('members', (await client.cluster.memberList({})).members.length, 1);
    check('status', (await client.maintenance.status()).version.startsWith('3.'));
  } finally {
    client.close();
  }
  console.log(`ok: ${checks} checks`);
}

main().catch((error) => {
  console.log(`FAILED: ${error.stack}`);
  process.exit(1);
});
