//! Round trips, bounds, and arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::apply::arbitrary;
use crate::apply::{Op, PutOp, TxnOp};
use crate::auth::{AuthOp, Caller};
use crate::types::LeaseId;

fn put(value_len: usize) -> Command {
    Command::Put(PutOp { key: "key".into(), value: vec![7; value_len].into(), ..PutOp::default() })
}

#[test]
fn a_small_put_costs_five_bytes_over_its_data() {
    assert_eq!(encoded_len(&put(10)), 3 + 10 + 5);
    assert_eq!(encode(&put(300)).len(), encoded_len(&put(300)));
}

#[test]
fn values_share_the_entrys_memory() {
    let bytes = encode(&put(1000));
    let Ok(Command::Put(op)) = decode(bytes.clone()) else { panic!("not a put") };
    assert!(bytes.as_ptr_range().contains(&op.value.as_ptr()));
}

#[test]
fn what_is_not_known_is_named() {
    assert_eq!(decode(Bytes::from_static(&[9, 1])), Err(CodecError::UnknownVersion(9)));
    assert_eq!(decode(Bytes::from_static(&[1, 200])), Err(CodecError::Unknown { what: "kind", number: 200 }));
    assert_eq!(decode(Bytes::new()), Err(CodecError::Truncated("its version")));
    let mut long = BytesMut::from(&encode(&put(1))[..]);
    long.extend_from_slice(b"x");
    assert_eq!(decode(long.freeze()), Err(CodecError::Trailing(1)));
    assert_eq!(decode(Bytes::from_static(&[1, 1, 0x80])), Err(CodecError::Unknown { what: "put flags", number: 0x80 }));
}

#[test]
fn counts_and_lengths_are_held_against_the_bytes_there_are() {
    let huge = Bytes::from_static(&[1, 7, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(decode(huge), Err(CodecError::CountTooLarge { what: "leases", count: 0xffff_ffff }));
    let key = Bytes::from_static(&[1, 1, 0, 0xff, 0xff, 0xff, 0x0f, b'k']);
    assert_eq!(decode(key), Err(CodecError::Truncated("a key")));
    let number = Bytes::from_static(&[1, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]);
    assert_eq!(decode(number), Err(CodecError::NumberTooLong));
}

/// A log of a build before is read, and one without users is read by it.
#[test]
fn only_what_is_new_is_of_the_new_version() {
    let user = Caller::User { name: "u".into(), revision: 3 };
    assert_eq!(encode(&put(1))[0], 1);
    assert_eq!(encode(&put(1).by(Caller::Nobody))[0], 1);
    assert_eq!(encode(&put(1).by(user.clone()))[0], 2);
    assert_eq!(encode(&Command::Auth(AuthOp::Enable))[0], 2);
    let batch = |commands: &[Command]| {
        let mut out = BytesMut::new();
        encode_batch(commands, &mut out);
        out.freeze()
    };
    assert_eq!(batch(&[put(1), put(2)])[0], 1);
    let mixed = [put(1), put(2).by(user), put(3)];
    assert_eq!(batch(&mixed)[0], 2);
    assert_eq!(decode_batch(batch(&mixed)), Ok(mixed.into()));
}

#[test]
fn callers_of_one_entry_share_their_names_and_keep_their_own() {
    let user = |name: &str, revision| Caller::User { name: name.into(), revision };
    let callers = [
        user("u", 3),
        user("u", 3),
        user("u", 4),
        user("v", 4),
        Caller::Member,
        user("v", 4),
        user("", 0),
        user("u", 3),
    ];
    let mut out = BytesMut::new();
    let commands: Vec<_> = callers.iter().map(|caller| put(1).by(caller.clone())).collect();
    encode_batch(&commands, &mut out);
    let read = decode_batch(out.freeze()).unwrap();
    assert_eq!(read, commands);
    let name = |at: usize| match &read[at] {
        Command::As(on_behalf) => match &on_behalf.caller {
            Caller::User { name, .. } => name,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert!(std::sync::Arc::ptr_eq(name(0), name(1)) && std::sync::Arc::ptr_eq(name(0), name(2)));
    assert!(std::sync::Arc::ptr_eq(name(3), name(5)));
}

#[test]
fn nobody_acts_on_behalf_of_one_who_acts_on_behalf() {
    let nested = put(1).by(Caller::Member).by(Caller::Member);
    assert_eq!(decode(encode(&nested)), Err(CodecError::Unknown { what: "kind", number: kind::AS }));
}

#[test]
fn nesting_has_an_end() {
    let nest = |depth: usize| {
        let inner =
            (1..depth).fold(TxnOp::default(), |inner, _| TxnOp { success: vec![Op::Txn(inner)], ..TxnOp::default() });
        decode(encode(&Command::Txn(inner)))
    };
    assert!(nest(TXN_DEPTH_MAX).is_ok());
    assert_eq!(nest(TXN_DEPTH_MAX + 1), Err(CodecError::TooDeep));
}

#[test]
fn extremes_survive() {
    for id in [i64::MIN, -1, 1, i64::MAX] {
        for command in [
            Command::Compact { revision: id },
            Command::LeaseGrant { id: LeaseId(id), ttl_secs: id },
            Command::LeaseCheckpoint { remaining: vec![(LeaseId(id), id)] },
        ] {
            assert_eq!(decode(encode(&command)), Ok(command));
        }
    }
}

proptest! {
    #[test]
    fn a_command_comes_back_as_it_was(command in arbitrary::command()) {
        let bytes = encode(&command);
        prop_assert_eq!(bytes.len(), encoded_len(&command));
        prop_assert_eq!(decode(bytes), Ok(command));
    }

    #[test]
    fn a_batch_comes_back_as_it_was(commands in proptest::collection::vec(arbitrary::command(), 0..8)) {
        let mut out = BytesMut::new();
        encode_batch(&commands, &mut out);
        prop_assert_eq!(decode_batch(out.freeze()), Ok(commands));
    }

    #[test]
    fn a_cut_command_is_an_error(command in arbitrary::command(), cut in 0.0..1.0f64) {
        let bytes = encode(&command);
        let len = (bytes.len() as f64 * cut) as usize;
        prop_assert!(decode(bytes.slice(..len)).is_err());
    }

    #[test]
    fn a_flipped_byte_never_panics(command in arbitrary::command(), at in any::<usize>(), with in 1..=255u8) {
        let mut bytes = encode(&command).to_vec();
        let at = at % bytes.len();
        bytes[at] ^= with;
        let _ = decode(bytes.into());
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    bolero::check!().for_each(|input| {
        let bytes = Bytes::copy_from_slice(input);
        if let Ok(command) = decode(bytes.clone()) {
            assert_eq!(decode(encode(&command)), Ok(command));
        }
        let _ = decode_batch(bytes);
    });
}
