//! The messages of the JSON gateway as data: which fields there are, and what stands in them.
//!
//! ```text
//! schema/**.proto ─► build/shapes.rs ─► shape("etcdserverpb.PutRequest") ─► fields ─► Kind ─► shape_at · choice
//! ```
//! A translator between JSON and the wire needs no generated code for each message, only this.

/// A message.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// `etcdserverpb.RangeRequest`
    pub name: &'static str,
    /// In the order of their numbers; 64 at most.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// On the wire.
    pub number: u32,
    /// As the schema has it, `range_end`.
    pub name: &'static str,
    /// As JSON has it by convention, `rangeEnd`.
    pub json_name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it is a list of that.
    pub repeated: bool,
    /// Of which oneof it is, if of any: its number in the message and its full name.
    pub oneof: Option<(usize, &'static str)>,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `bool`
    Bool,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// One of a [`choice`].
    Enum(usize),
    /// A message, at [`shape_at`].
    Message(usize),
}

/// An enum.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// `etcdserverpb.AlarmType`
    pub name: &'static str,
    /// Names and numbers, in the schema's order.
    pub values: &'static [(&'static str, i32)],
}

const SHAPES: &[Shape] = include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

const CHOICES: &[Choice] = include!(concat!(env!("OUT_DIR"), "/choices.rs"));

const _: () = {
    let mut at = 0;
    while at < SHAPES.len() {
        assert!(SHAPES[at].fields.len() <= 64, "a set of fields is one word");
        at += 1;
    }
};

/// The message of that full name, if a method of the gateway takes or gives it.
pub fn shape(name: &str) -> Option<&'static Shape> {
    SHAPES.binary_search_by(|shape| shape.name.cmp(name)).ok().map(|at| &SHAPES[at])
}

/// The message that a [`Kind::Message`] means.
pub const fn shape_at(at: usize) -> &'static Shape {
    &SHAPES[at]
}

/// The enum that a [`Kind::Enum`] means.
pub const fn choice(at: usize) -> &'static Choice {
    &CHOICES[at]
}

impl Shape {
    /// The field of a JSON object's key: by either of its names; with its place among the fields.
    pub fn by_key(&self, key: &str) -> Option<(usize, &'static Field)> {
        // The conventional names come first, as in Go; they are no other field's other name in any schema here.
        let fields: &'static [Field] = self.fields;
        let at = fields
            .iter()
            .position(|field| field.json_name == key)
            .or_else(|| fields.iter().position(|field| field.name == key))?;
        Some((at, &fields[at]))
    }

    /// The field of a number on the wire.
    pub fn by_number(&self, number: u32) -> Option<&'static Field> {
        let fields: &'static [Field] = self.fields;
        fields.binary_search_by_key(&number, |field| field.number).ok().map(|at| &fields[at])
    }
}

impl Choice {
    /// The number of a name.
    pub fn number(&self, name: &str) -> Option<i32> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
    }

    /// The name of a number.
    pub fn name(&self, number: i32) -> Option<&'static str> {
        self.values.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
    }
}
