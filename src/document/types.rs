//! Which kind of value a type OID stands for.
//!
//! Built-in types have fixed OIDs. Enums, domains and their arrays have OIDs of their own in every
//! database and are learned from the catalog; a type that is neither is written as text.

use std::collections::HashMap;
use std::sync::Arc;

/// How values of a type are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `t` or `f`.
    Bool,
    /// A whole number of so many bits.
    Integer(u8),
    /// `float4` or `float8`, by bits.
    Float(u8),
    /// Exact decimal.
    Numeric,
    /// Text meant for people: `text`, `varchar`, `char`, `name`, `xml`, `citext`.
    Text,
    /// A UUID.
    Uuid,
    /// A calendar date.
    Date,
    /// A timestamp with or without time zone; both are written in UTC.
    Timestamp,
    /// JSON as it was typed: white space, duplicate keys.
    Json,
    /// Normalised JSON.
    Jsonb,
    /// Bytes in hexadecimal.
    Bytea,
    /// A label.
    Enum,
    /// An address with or without a mask.
    Inet,
    /// Keys and values, all of them text.
    Hstore,
    /// An array of the inner kind, its elements parted by the delimiter.
    Array(Arc<Kind>, u8),
    /// A range of the inner kind.
    Range(Arc<Kind>),
    /// Any number of ranges of the inner kind.
    Multirange(Arc<Kind>),
    /// Anything else, as the text that Postgres prints.
    Other,
}

/// What the catalog says of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeFacts {
    /// `pg_type.oid`.
    pub oid: u32,
    /// `typtype`: `b` base, `c` composite, `d` domain, `e` enum, `r` range, `m` multirange, `p` pseudo.
    pub typtype: u8,
    /// `typcategory`: `A` array, `S` string, …
    pub category: u8,
    /// `typbasetype`: what a domain is over.
    pub base_oid: u32,
    /// `typelem`: what an array is of.
    pub element_oid: u32,
    /// `typdelim`.
    pub delimiter: u8,
    /// What a range or a multirange is over.
    pub subtype_oid: u32,
    /// Whether it is the type of that name of that extension.
    pub is_hstore: bool,
}

/// OID, kind and array OID of the built-in types that are not [`Kind::Other`].
const BUILT_IN: &[(u32, Kind, u32)] = &[
    (16, Kind::Bool, 1000),
    (17, Kind::Bytea, 1001),
    (18, Kind::Text, 1002),
    (19, Kind::Text, 1003),
    (20, Kind::Integer(64), 1016),
    (21, Kind::Integer(16), 1005),
    (23, Kind::Integer(32), 1007),
    (25, Kind::Text, 1009),
    (26, Kind::Integer(64), 1028),
    (114, Kind::Json, 199),
    (142, Kind::Text, 143),
    (700, Kind::Float(32), 1021),
    (701, Kind::Float(64), 1022),
    (1042, Kind::Text, 1014),
    (1043, Kind::Text, 1015),
    (1082, Kind::Date, 1182),
    (1114, Kind::Timestamp, 1115),
    (1184, Kind::Timestamp, 1185),
    (1700, Kind::Numeric, 1231),
    (2950, Kind::Uuid, 2951),
    (3802, Kind::Jsonb, 3807),
    (869, Kind::Inet, 1041),
    // money, time, timetz, interval, cidr, macaddr, bit, varbit
    (790, Kind::Other, 791),
    (1083, Kind::Other, 1183),
    (1266, Kind::Other, 1270),
    (1186, Kind::Other, 1187),
    (650, Kind::Other, 651),
    (829, Kind::Other, 1040),
    (1560, Kind::Other, 1561),
    (1562, Kind::Other, 1563),
];

/// OIDs of the built-in ranges, each with its arrays, its multiranges, their arrays, and its subtype.
const RANGES: &[[u32; 5]] = &[
    [3904, 3905, 4451, 6150, 23],
    [3906, 3907, 4532, 6151, 1700],
    [3908, 3909, 4533, 6152, 1114],
    [3910, 3911, 4534, 6153, 1184],
    [3912, 3913, 4535, 6155, 1082],
    [3926, 3927, 4536, 6157, 20],
];

/// Nested domains and arrays deeper than this are written as text.
const DEPTH_MAX: usize = 16;

/// The kinds of all types met so far.
#[derive(Clone, Debug)]
pub struct TypeRegistry {
    kinds: HashMap<u32, Kind>,
}

impl TypeRegistry {
    /// The types that every server has.
    pub fn builtin() -> Self {
        let mut types = Self { kinds: HashMap::new() };
        for (oid, kind, array) in BUILT_IN {
            types.insert(*oid, *array, kind.clone());
        }
        for [range, ranges, multirange, multiranges, subtype] in RANGES {
            let subtype = Arc::new(types.kind(*subtype));
            types.insert(*range, *ranges, Kind::Range(Arc::clone(&subtype)));
            types.insert(*multirange, *multiranges, Kind::Multirange(subtype));
        }
        types
    }

    fn insert(&mut self, oid: u32, array: u32, kind: Kind) {
        self.kinds.insert(array, Kind::Array(Arc::new(kind.clone()), b','));
        self.kinds.insert(oid, kind);
    }

    /// The kind of a type; [`Kind::Other`] if it is not known.
    pub fn kind(&self, oid: u32) -> Kind {
        self.kinds.get(&oid).cloned().unwrap_or(Kind::Other)
    }

    /// Whether the catalog need not be asked.
    pub fn knows(&self, oid: u32) -> bool {
        self.kinds.contains_key(&oid)
    }

    /// Takes on what the catalog says, in any order. Of `asked`, what the catalog does not know is
    /// written as text from now on.
    pub fn learn(&mut self, facts: &[TypeFacts], asked: &[u32]) {
        let by_oid: HashMap<u32, &TypeFacts> = facts.iter().map(|fact| (fact.oid, fact)).collect();
        for fact in facts {
            let kind = self.resolve(fact.oid, &by_oid, 0);
            self.kinds.insert(fact.oid, kind);
        }
        for &oid in asked {
            self.kinds.entry(oid).or_insert(Kind::Other);
        }
    }

    fn resolve(&self, oid: u32, facts: &HashMap<u32, &TypeFacts>, depth: usize) -> Kind {
        let Some(fact) = facts.get(&oid).filter(|_| depth < DEPTH_MAX) else {
            return self.kind(oid);
        };
        match fact.typtype {
            b'd' => self.resolve(fact.base_oid, facts, depth + 1),
            b'e' => Kind::Enum,
            b'r' | b'm' if fact.subtype_oid != 0 => {
                let subtype = Arc::new(self.resolve(fact.subtype_oid, facts, depth + 1));
                match fact.typtype {
                    b'r' => Kind::Range(subtype),
                    _ => Kind::Multirange(subtype),
                }
            }
            _ if fact.is_hstore => Kind::Hstore,
            b'b' if fact.category == b'A' && fact.element_oid != 0 => {
                let element = self.resolve(fact.element_oid, facts, depth + 1);
                Kind::Array(Arc::new(element), fact.delimiter)
            }
            // citext and its like.
            b'b' if fact.category == b'S' => Kind::Text,
            _ => self.kinds.get(&oid).cloned().unwrap_or(Kind::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(oid: u32, typtype: u8, category: u8, base_oid: u32, element_oid: u32) -> TypeFacts {
        TypeFacts {
            oid,
            typtype,
            category,
            base_oid,
            element_oid,
            delimiter: b',',
            subtype_oid: 0,
            is_hstore: false,
        }
    }

    #[test]
    fn domains_arrays_and_enums_resolve_in_any_order() {
        let mut types = TypeRegistry::builtin();
        let facts = [
            fact(90_003, b'b', b'A', 0, 90_002),
            fact(90_002, b'd', b'N', 90_001, 0),
            fact(90_001, b'd', b'N', 23, 0),
            fact(90_004, b'e', b'E', 0, 0),
            fact(90_005, b'b', b'A', 0, 90_004),
            fact(90_006, b'c', b'C', 0, 0),
            TypeFacts { subtype_oid: 90_002, ..fact(90_007, b'r', b'R', 0, 0) },
            TypeFacts { subtype_oid: 701, ..fact(90_008, b'm', b'R', 0, 0) },
            TypeFacts { is_hstore: true, ..fact(90_009, b'b', b'U', 0, 0) },
        ];
        types.learn(&facts, &[90_003, 99_999]);
        assert_eq!(types.kind(90_003), Kind::Array(Arc::new(Kind::Integer(32)), b','));
        assert_eq!(types.kind(90_005), Kind::Array(Arc::new(Kind::Enum), b','));
        assert_eq!(types.kind(90_006), Kind::Other);
        assert_eq!(types.kind(90_007), Kind::Range(Arc::new(Kind::Integer(32))));
        assert_eq!(types.kind(90_008), Kind::Multirange(Arc::new(Kind::Float(64))));
        assert_eq!(types.kind(90_009), Kind::Hstore);
        let range = Kind::Range(Arc::new(Kind::Integer(64)));
        assert_eq!(types.kind(3927), Kind::Array(Arc::new(range), b','));
        assert!(types.knows(99_999) && !types.knows(99_998));
    }

    #[test]
    fn a_domain_over_itself_ends() {
        let mut types = TypeRegistry::builtin();
        types.learn(&[fact(90_001, b'd', b'N', 90_001, 0)], &[]);
        assert_eq!(types.kind(90_001), Kind::Other);
    }
}
