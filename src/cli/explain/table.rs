//! The errors that are explained: texts as a client, a log or a terminal shows them.

/// One thing that can be wrong.
pub(super) struct Entry {
    /// As it is shown; the first part of it, if the rest differs from case to case.
    pub(super) texts: &'static [&'static str],
    /// What has happened.
    pub(super) means: &'static str,
    /// What to do.
    pub(super) remedy: &'static str,
}

const fn entry(texts: &'static [&'static str], means: &'static str, remedy: &'static str) -> Entry {
    Entry { texts, means, remedy }
}

/// All of them, by what they are about.
pub(super) const ENTRIES: &[Entry] = &[
    // Requests.
    entry(
        &["etcdserver: key is not provided"],
        "The request names an empty key, which is none.",
        "Mend the client. All keys are the range from \"\\0\" to \"\\0\", not the empty key.",
    ),
    entry(
        &["etcdserver: key not found"],
        "A put is to keep the value or the lease of a key that isn't there; or a transaction holds an empty operation.",
        "Put the key with a value first, or leave ignore_value and ignore_lease out.",
    ),
    entry(
        &["etcdserver: value is provided", "etcdserver: lease is provided"],
        "A put is to keep what is there (ignore_value, ignore_lease) and brings its own at the same time.",
        "Leave one of the two out.",
    ),
    entry(
        &["etcdserver: too many operations in txn request"],
        "A transaction has more compares or operations than --max-txn-ops (128).",
        "Cut it into smaller ones, or raise --max-txn-ops on all members.",
    ),
    entry(
        &["etcdserver: duplicate key given in txn request"],
        "A transaction changes one key twice; which of them counts would be anybody's guess.",
        "Change each key once in a transaction.",
    ),
    entry(
        &["etcdserver: invalid sort option", "etcdserver: unknown method", "etcdserver: invalid client api version"],
        "The client sends a number or a word that this version doesn't know.",
        "Mend or update the client.",
    ),
    entry(
        &["etcdserver: mvcc: required revision has been compacted"],
        "The revision that was asked for is older than the history that is kept.",
        "Read without a revision, and watch from the revision of that answer on. If clients fall behind again and again, \
         keep more: --auto-compaction-retention.",
    ),
    entry(
        &["etcdserver: mvcc: required revision is a future revision"],
        "The revision that was asked for hasn't been yet. After a restore from a backup revisions begin earlier again.",
        "Let the client read anew. Restore with --bump-revision and --mark-compacted, so that nobody sees one twice.",
    ),
    entry(
        &["etcdserver: mvcc: database space exceeded", "alarm:NOSPACE"],
        "The data has reached --quota-backend-bytes, or the NOSPACE alarm is still on: nothing but deletes is taken.",
        "Delete or compact (etcdctl compaction REVISION), then etcdctl alarm disarm; or raise --quota-backend-bytes on \
         all members first. `rusd status --cluster` shows how much is taken.",
    ),
    entry(
        &["etcdserver: request is too large", "grpc: received message larger than max"],
        "The request is larger than --max-request-bytes (1.5 MiB).",
        "Keep large values elsewhere, or cut the request; raise --max-request-bytes on all members only if need be.",
    ),
    entry(
        &["grpc: trying to send message larger than max"],
        "The answer would be larger than a client takes.",
        "Read in pages (limit, and the key after the last one), or by RangeStream.",
    ),
    entry(
        &["etcdserver: too many requests"],
        "A limit is reached; mostly that of writes, since the disk or the other members don't keep up.",
        "Let clients wait and try again. rusd_limit_refused_total in /metrics names the flag; for the disk see `rusd doctor`.",
    ),
    // Leases.
    entry(
        &["etcdserver: requested lease not found"],
        "The lease has run out or was revoked, and its keys are gone with it; or it never was.",
        "Grant a new one, and renew it at a third of its time. Long pauses of the client are what ends leases.",
    ),
    entry(
        &["etcdserver: lease already exists"],
        "A lease is granted with an id that lives.",
        "Let the server choose the id (0).",
    ),
    entry(&["etcdserver: too large lease TTL"], "A lease of more than 9 000 000 000 seconds.", "Ask for less."),
    // The leader, and time.
    entry(
        &["etcdserver: no leader"],
        "This member knows no leader: fewer than a majority of members reach each other, or an election is under way.",
        "Wait a second and try again. If it stays: `rusd status --cluster` shows who doesn't answer; start those, and \
         look at the network between members (port 2380).",
    ),
    entry(
        &["etcdserver: leader changed", "etcdserver: request timed out, possibly due to previous leader failure"],
        "Another member began to lead while the request waited. A read may be sent again at once (the first of these texts \
         is etcd's for one; rusd asks the new leader itself); whether a write was done can't be known.",
        "Read before you write again. If leaders change often, look for slow disks (`rusd doctor`), pauses of the \
         machine, or an --election-timeout too short for the network.",
    ),
    entry(
        &[
            "etcdserver: request timed out",
            "etcdserver: request timed out, possibly due to connection lost",
            "etcdserver: request timed out, waiting for the applied index took too long",
            "context deadline exceeded",
        ],
        "No answer in time: the majority couldn't be reached, a disk is slow, or the client allowed too little. Whether \
         a write was done can't be known.",
        "Read before you write again. `rusd status --cluster` shows who leads and who doesn't answer, `rusd doctor` how \
         long the disk takes.",
    ),
    entry(
        &["etcdserver: not leader", "etcdserver: bad leader transferee"],
        "The lead can be handed over only by the leader, to a member that votes.",
        "Ask the leader: `rusd status --cluster` shows which one it is.",
    ),
    entry(
        &["etcdserver: request timed out, leader transfer took too long"],
        "The member that was to lead didn't catch up in time; the old leader goes on.",
        "Try again, or choose a member that isn't behind (`rusd status --cluster`).",
    ),
    entry(
        &["etcdserver: server stopped"],
        "The member is going down.",
        "Ask another one: give clients the URLs of all members.",
    ),
    entry(
        &["etcdserver: rpc not supported for learner"],
        "The member is a learner yet: it answers only reads that needn't be the newest.",
        "Ask another member, or wait until it votes (etcdctl member promote).",
    ),
    // Members.
    entry(
        &["etcdserver: member not found"],
        "No member has this id, or it was removed.",
        "etcdctl member list shows the ids. A removed member comes back only as a new one, with an empty data directory.",
    ),
    entry(
        &["etcdserver: member ID already exist", "etcdserver: Peer URLs already exists"],
        "A member with this id or one of these peer URLs is there already.",
        "etcdctl member list shows it; remove the old one first if the new one takes its place.",
    ),
    entry(
        &["etcdserver: given member URLs are invalid"],
        "A peer URL is missing, or isn't of the form http://host:port.",
        "Name scheme, host and port, and no path.",
    ),
    entry(
        &["etcdserver: re-configuration failed due to not enough started members"],
        "The change would leave a cluster that can't decide: too few of its members have ever started.",
        "Start the members that were added before, or remove them; then change one member at a time.",
    ),
    entry(
        &["etcdserver: unhealthy cluster"],
        "The leader hasn't been in steady touch with enough members for 5 seconds; changing members now could lose the \
         majority.",
        "Wait, and look at `rusd status --cluster`. If a member is gone for good and the majority is there, remove that \
         one first.",
    ),
    entry(
        &[
            "etcdserver: can only promote a learner member",
            "etcdserver: can only promote a learner member which is in sync with leader",
        ],
        "The member votes already, or lacks too much of the log yet.",
        "Wait until it has caught up (the column BEHIND of `rusd status --cluster`).",
    ),
    entry(
        &["etcdserver: too many learner members in cluster"],
        "There are --max-learners (1) learners already.",
        "Promote or remove that one first: one member at a time is safest.",
    ),
    entry(
        &["has already been bootstrapped"],
        "The cluster knows this member, and its data directory is empty: it no longer knows what it promised.",
        "Put the data back; or remove the member and add it anew: etcdctl member remove, member add.",
    ),
    entry(
        &["error validating peerURLs", "member count is unequal"],
        "--initial-cluster doesn't list the members that the cluster has.",
        "Add the member first (etcdctl member add) and copy the list that it prints.",
    ),
    entry(
        &["cannot fetch cluster info from peer urls"],
        "A member that joins reached none of those in --initial-cluster.",
        "Start the others, look at names, ports and certificates; only a new cluster begins with \
         --initial-cluster-state=new.",
    ),
    entry(
        &["etcdserver: cluster ID mismatch", "cluster id mismatch"],
        "Members of two clusters meet on one address.",
        "Correct the URLs, or give each cluster its own --initial-cluster-token.",
    ),
    // Users.
    entry(
        &["etcdserver: user name is empty"],
        "Authentication is on and the request comes without a user; or a user is added without a name.",
        "Log in: --user NAME:PASSWORD, or ETCDCTL_USER and ETCDCTL_PASSWORD.",
    ),
    entry(
        &["etcdserver: authentication failed, invalid user ID or password"],
        "The name or the password is wrong; which one isn't told.",
        "root can set a new one: etcdctl user passwd NAME.",
    ),
    entry(
        &["auth: authentication failed, password was given for no password user"],
        "This user was made without a password: it comes by a client certificate whose common name is its name.",
        "Show the certificate and no password, or set one: etcdctl user passwd NAME.",
    ),
    entry(
        &["etcdserver: permission denied"],
        "None of the user's roles allows this, for these keys.",
        "etcdctl user get NAME --detail shows what is allowed; etcdctl role grant-permission ROLE readwrite KEY END adds.",
    ),
    entry(
        &["etcdserver: invalid auth token", "etcdserver: revision of auth store is old"],
        "The token has run out, or users and roles were changed since. Clients log in again by themselves.",
        "Log in again. If it comes often, raise --auth-token-ttl; with JWT, look at clocks and keys.",
    ),
    entry(
        &["etcdserver: authentication is not enabled"],
        "A client logs in where nobody has to.",
        "Leave the user out, or turn it on: etcdctl auth enable.",
    ),
    entry(
        &["etcdserver: root user does not exist", "etcdserver: root user does not have root role"],
        "Authentication is turned on without anybody who could turn it off.",
        "etcdctl user add root; etcdctl user grant-role root root; then etcdctl auth enable.",
    ),
    entry(
        &["etcdserver: user name already exists", "etcdserver: role name already exists"],
        "It is there already.",
        "Change the one that is there, or choose another name.",
    ),
    entry(
        &["etcdserver: user name not found", "etcdserver: role name not found", "etcdserver: role name is empty"],
        "There is no such user or role.",
        "etcdctl user list and etcdctl role list show those that are.",
    ),
    entry(
        &[
            "etcdserver: role is not granted to the user",
            "etcdserver: permission is not granted to the role",
            "etcdserver: permission not given",
        ],
        "What is to be taken isn't there, or nothing was named.",
        "etcdctl user get NAME, etcdctl role get NAME: key and end of the range must be named just so.",
    ),
    entry(
        &["etcdserver: invalid auth management"],
        "The change would lock everybody out (root's), or the range of keys is none.",
        "Turn authentication off first, or mend the range: its end comes after its key.",
    ),
    entry(
        &["bcrypt: password length exceeds 72 bytes"],
        "bcrypt takes no more of a password.",
        "Choose one of 72 bytes at most.",
    ),
    entry(
        &["auth: token signing attempted with verify-only key"],
        "--auth-token names only a public key, so this member can check tokens and not make them.",
        "Name priv-key, too, on members that clients log in at.",
    ),
    // Data.
    entry(
        &["etcdserver: corrupt cluster", "alarm:CORRUPT"],
        "The CORRUPT alarm is on: a member was found to hold other data than the rest. Nothing is written.",
        "`rusd status --cluster` shows which one. Remove it and add it anew with an empty data directory, then etcdctl \
         alarm disarm.",
    ),
    entry(
        &["rusd: storage failed", "the store is given up", "damaged data in"],
        "The disk refused, or gave back other bytes than were written.",
        "Look at the kernel's log. Start again: what the log holds is put back. If the log itself is damaged, remove \
         the member and add it anew, or restore a backup.",
    ),
    entry(
        &["no space left", "No space left on device", "no storage space"],
        "The file system is full.",
        "Make room or enlarge it; then start again. Nothing acknowledged is lost.",
    ),
    entry(
        &["Permission denied (os error 13)"],
        "The user that it runs as may not read or write this file or directory.",
        "Give it to that user (chown), or run it as the one that owns it: 65532 in the chart's image, rusd where the .deb \
         runs it, root where kubeadm does. `rusd doctor`, run as that user, tries it.",
    ),
    entry(
        &["Too many open files"],
        "Connections and files are as many as the process may have.",
        "Raise the limit: LimitNOFILE in the unit, ulimit -n in a shell. Look for clients that connect anew for each call.",
    ),
    entry(
        &["is in use by"],
        "Another process runs on this data directory.",
        "Stop that one, or type another --data-dir. Two members never share one.",
    ),
    entry(
        &["was made by etcd; rusd has a format of its own"],
        "etcd's files aren't rusd's.",
        "rusd import DIRECTORY --data-dir NEW makes a directory of them; --import-from does it at a first start.",
    ),
    entry(
        &["its format is version"],
        "A newer rusd made this data directory.",
        "Start that version or a newer one; this one never writes to it.",
    ),
    // Connections.
    entry(
        &["connection refused"],
        "Nobody listens there.",
        "Look at the URL and its port, at --listen-client-urls, and whether the process runs.",
    ),
    entry(
        &["address already in use", "Address in use"],
        "Another process has the port.",
        "Stop it, or type other URLs in the --listen-…-urls flags.",
    ),
    entry(
        &[
            "first record does not look like a TLS handshake",
            "server gave HTTP response to HTTPS client",
            "received corrupt message",
        ],
        "One side speaks TLS and the other doesn't.",
        "Let scheme and flags agree: https:// with --cert-file and --key-file, http:// without.",
    ),
    entry(
        &[
            "remote error: tls: bad certificate",
            "certificate signed by unknown authority",
            "unknown certificate authority",
            "client didn't provide a certificate",
            "certificate required",
            "client certificate authentication failed",
            "invalid peer certificate: UnknownIssuer",
            "received fatal alert: UnknownCA",
            "received fatal alert: BadCertificate",
            "received fatal alert: CertificateRequired",
            "peer sent no certificates",
        ],
        "One side doesn't trust the other's certificate, or none was shown.",
        "Let --cacert (--trusted-ca-file) hold the authority that signed the other side's certificate, and show one by \
         --cert and --key where it is asked for.",
    ),
    entry(
        &["it hung up", "stream closed because of a broken pipe", "connection closed", "frame with invalid size"],
        "The other side ended the connection before it answered: it speaks TLS and was asked without (or the other way \
         round), it wants a certificate and none was shown, or it just ended.",
        "Let scheme and flags agree: https:// with --cacert, and --cert and --key where it asks for them. Its log has a \
         line for each connection that it rejected.",
    ),
    entry(
        &["x509: certificate is valid for", "certificate not valid for name"],
        "The certificate doesn't hold the name or address by which the server was reached.",
        "Put it among the certificate's subject alternative names, or reach the server by a name that is.",
    ),
    entry(
        &[
            "certificate has expired",
            "expired certificate",
            "certificate expired",
            "received fatal alert: CertificateExpired",
            "certificate not valid yet",
        ],
        "A certificate is too old, or a clock is wrong.",
        "Put a new one in its place: files are read again without a restart. `rusd doctor` looks at the clock.",
    ),
];
