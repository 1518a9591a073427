package rusd;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.Lease;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.kv.TxnResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.watch.WatchEvent;
import java.nio.charset.StandardCharsets;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/** Java's jetcd against a server. Usage: Probe URL; prints "ok: N checks", or the check that fails. */
public final class Probe {
  private static int checks = 0;

  public static void main(String[] args) {
    try (Client client = Client.builder().endpoints(args[0]).build()) {
      keys(client);
      leases(client);
      watches(client);
      recipes(client);
      cluster(client);
    } catch (Throwable fault) {
      System.out.println("FAILED: " + fault);
      fault.printStackTrace(System.out);
      System.exit(1);
    }
    System.out.println("ok: " + checks + " checks");
    System.exit(0);
  }

  private static void keys(Client client) throws Exception {
    KV kv = client.getKVClient();
    of(kv.put(text("java/a"), text("one")));
    check("get", of(kv.get(text("java/a"))).getKvs().get(0).getValue(), text("one"));
    check("nothing", of(kv.get(text("java/none"))).getCount(), 0L);
    of(kv.put(text("java/b"), ByteSequence.from(new byte[] {0, -1, 127})));
    GetOption prefix = GetOption.builder().isPrefix(true).build();
    check("prefix", of(kv.get(text("java/"), prefix)).getCount(), 2L);
    Cmp equal = new Cmp(text("java/a"), Cmp.Op.EQUAL, CmpTarget.value(text("one")));
    Op put = Op.put(text("java/c"), text("three"), PutOption.DEFAULT);
    TxnResponse txn = of(kv.txn().If(equal).Then(put).commit());
    check("transaction", txn.isSucceeded(), true);
    Cmp newer = new Cmp(text("java/a"), Cmp.Op.GREATER, CmpTarget.version(9));
    check("transaction that fails", of(kv.txn().If(newer).Then(put).commit()).isSucceeded(), false);
    DeleteOption all = DeleteOption.builder().isPrefix(true).build();
    check("delete", of(kv.delete(text("java/"), all)).getDeleted(), 3L);
  }

  private static void leases(Client client) throws Exception {
    Lease lease = client.getLeaseClient();
    long id = of(lease.grant(60)).getID();
    of(client.getKVClient().put(text("java/l"), text("x"), PutOption.builder().withLeaseId(id).build()));
    check("renewed", of(lease.keepAliveOnce(id)).getTTL(), 60L);
    LeaseOption keys = LeaseOption.builder().withAttachedKeys().build();
    check("keys of a lease", of(lease.timeToLive(id, keys)).getKeys().size(), 1);
    of(lease.revoke(id));
    check("gone with its lease", of(client.getKVClient().get(text("java/l"))).getCount(), 0L);
  }

  private static void watches(Client client) throws Exception {
    CompletableFuture<WatchEvent> seen = new CompletableFuture<>();
    try (Watch.Watcher watcher =
        client.getWatchClient().watch(text("java/w"), told -> seen.complete(told.getEvents().get(0)))) {
      of(client.getKVClient().put(text("java/w"), text("seen")));
      check("watch", of(seen).getKeyValue().getValue(), text("seen"));
    }
  }

  private static void recipes(Client client) throws Exception {
    long id = of(client.getLeaseClient().grant(60)).getID();
    ByteSequence key = of(client.getLockClient().lock(text("java-lock"), id)).getKey();
    check("locked", of(client.getKVClient().get(key)).getCount(), 1L);
    of(client.getLockClient().unlock(key));
    check("unlocked", of(client.getKVClient().get(key)).getCount(), 0L);
    var campaign = of(client.getElectionClient().campaign(text("java-election"), id, text("me")));
    var leader = of(client.getElectionClient().leader(text("java-election")));
    check("leader", leader.getKv().getValue(), text("me"));
    of(client.getElectionClient().proclaim(campaign.getLeader(), text("me again")));
    of(client.getElectionClient().resign(campaign.getLeader()));
    of(client.getLeaseClient().revoke(id));
  }

  private static void cluster(Client client) throws Exception {
    check("members", of(client.getClusterClient().listMember()).getMembers().size(), 1);
  }

  private static ByteSequence text(String text) {
    return ByteSequence.from(text, StandardCharsets.UTF_8);
  }

  private static <T> T of(Future<T> answer) throws Exception {
    return answer.get(20, TimeUnit.SECONDS);
  }

  private static void check(String name, Object found, Object expected) {
    if (!Objects.equals(found, expected)) {
      throw new AssertionError(name + ": " + found + " and not " + expected);
    }
    checks += 1;
  }
}
