//! Types that are made of others: arrays, ranges, multiranges. See `table.rs`.

use super::table::Type;

const fn of(name: &'static str, values: &'static [(&'static str, &'static str)]) -> Type {
    Type { name, values }
}

pub(super) const ARRAYS: &[Type] = &[
    of(
        "int4[]",
        &[
            ("'{}'", "[]"),
            ("'{1,NULL,3}'", "[1,null,3]"),
            ("'{{1,2},{3,NULL}}'", "[[1,2],[3,null]]"),
            ("'[2:4]={1,2,3}'", "[1,2,3]"),
            ("'[0:0][-1:-1]={{7}}'", "[[7]]"),
            ("'{{{{{{1}}}}}}'", "[[[[[[1]]]]]]"),
        ],
    ),
    of(
        "text[]",
        &[
            (r#"'{NULL,"NULL","null","",a b}'"#, r#"[null,"NULL","null","","a b"]"#),
            (
                r#"array['a"b', 'c\d', '{,}', E'e\nf', ' g ', '[1:1]={x}']"#,
                r#"["a\"b","c\\d","{,}","e\nf"," g ","[1:1]={x}"]"#,
            ),
            ("array[array['ä'], array['🦀']]", r#"[["ä"],["🦀"]]"#),
        ],
    ),
    of("varchar(3)[]", &[("'{a,b}'", r#"["a","b"]"#)]),
    of("char(2)[]", &[("'{a}'", r#"["a "]"#)]),
    of("bool[]", &[("'{t,NULL,f}'", "[true,null,false]")]),
    of(
        "int8[]",
        &[(
            "'{9223372036854775807,-9223372036854775808}'",
            "[9223372036854775807,-9223372036854775808]",
        )],
    ),
    of("float8[]", &[("'{NaN,1.5,-Infinity,-0,NULL}'", r#"["NaN",1.5,"-Infinity",-0,null]"#)]),
    of("numeric[]", &[("'{1.00,NaN,NULL}'", r#"["1.00","NaN",null]"#)]),
    of(
        "date[]",
        &[(
            r#"'{infinity,2024-01-01,NULL,"0044-03-15 BC",10000-01-01}'"#,
            r#"["infinity","2024-01-01",null,"-0043-03-15","+10000-01-01"]"#,
        )],
    ),
    of(
        "timestamptz[]",
        &[(
            "array['2024-01-01 00:00:00+02'::timestamptz, '-infinity']",
            r#"["2023-12-31T22:00:00Z","-infinity"]"#,
        )],
    ),
    of("interval[]", &[("'{1 day,NULL}'", r#"["P1D",null]"#)]),
    of(
        "uuid[]",
        &[(
            "'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'",
            r#"["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]"#,
        )],
    ),
    of("bytea[]", &[(r#"array['\x00ff10'::bytea, '\x', null]"#, r#"["AP8Q","",null]"#)]),
    of(
        "json[]",
        &[(
            r#"array[E'{"a":1,\n"a":2}'::json, 'null', null, '[1]']"#,
            r#"[{"a":2},null,null,[1]]"#,
        )],
    ),
    of(
        "jsonb[]",
        &[(
            r#"array[array['{"a": "b, c"}'::jsonb, '1'], array['"x"', '[[]]']]"#,
            r#"[[{"a":"b, c"},1],["x",[[]]]]"#,
        )],
    ),
    of("mood[]", &[(r#"array['it''s, "fine"'::mood, null]"#, r#"["it's, \"fine\"",null]"#)]),
    of("positive[]", &[("'{1,2.5}'", r#"["1.00","2.50"]"#)]),
    of("tags[]", &[(r#"array['{a,b}'::tags, '{}']"#, r#"[["a","b"],[]]"#)]),
    of("pair[]", &[(r#"array[row(1, 'a,b')::pair, null]"#, r#"["(1,\"a,b\")",null]"#)]),
    of("inet[]", &[("'{10.0.0.1,10.0.0.0/8,NULL}'", r#"["10.0.0.1","10.0.0.0/8",null]"#)]),
    of("point[]", &[("array[point(1,2)]", r#"["(1,2)"]"#)]),
    // Its elements are parted by semicolons.
    of(
        "box[]",
        &[(
            "array[box(point(0,0),point(1,1)), box(point(2,2),point(3,3)), null]",
            r#"["(1,1),(0,0)","(3,3),(2,2)",null]"#,
        )],
    ),
    of(
        "int4range[]",
        &[(
            "array['[1,3)'::int4range, null, 'empty']",
            r#"[{"gte":1,"lt":3},null,{"empty":true}]"#,
        )],
    ),
    of(
        "tstzrange[]",
        &[(
            "array[array['[2024-01-01 00:00:00+00,infinity)'::tstzrange]]",
            r#"[[{"gte":"2024-01-01T00:00:00Z","lt":"infinity"}]]"#,
        )],
    ),
];

pub(super) const RANGES: &[Type] = &[
    of(
        "int4range",
        &[
            ("'[1,5]'", r#"{"gte":1,"lt":6}"#),
            ("'(1,5)'", r#"{"gte":2,"lt":5}"#),
            ("'(,5)'", r#"{"lt":5}"#),
            ("'[1,)'", r#"{"gte":1}"#),
            ("'(,)'", "{}"),
            ("'empty'", r#"{"empty":true}"#),
            ("'(3,3]'", r#"{"empty":true}"#),
        ],
    ),
    of(
        "int8range",
        &[(
            "'[-9223372036854775808,9223372036854775807)'",
            r#"{"gte":-9223372036854775808,"lt":9223372036854775807}"#,
        )],
    ),
    of(
        "numrange",
        &[
            ("'[1.10,2.2]'", r#"{"gte":"1.10","lte":"2.2"}"#),
            ("'(1,1.0000000000000000001)'", r#"{"gt":"1","lt":"1.0000000000000000001"}"#),
            ("'[NaN,NaN]'", r#"{"gte":"NaN","lte":"NaN"}"#),
            ("'empty'", r#"{"empty":true}"#),
        ],
    ),
    of(
        "daterange",
        &[
            ("'[2024-01-01,2024-01-31]'", r#"{"gte":"2024-01-01","lt":"2024-02-01"}"#),
            ("'[-infinity,infinity]'", r#"{"gte":"-infinity","lte":"infinity"}"#),
            ("'[0044-03-15 BC,10000-01-01)'", r#"{"gte":"-0043-03-15","lt":"+10000-01-01"}"#),
        ],
    ),
    of(
        "tsrange",
        &[(
            "'(2024-01-01 00:00,2024-01-01 24:00]'",
            r#"{"gt":"2024-01-01T00:00:00Z","lte":"2024-01-02T00:00:00Z"}"#,
        )],
    ),
    of(
        "tstzrange",
        &[
            // Empty in milliseconds: the clusters' own range types refuse it.
            (
                "'[2024-01-01 00:00:00.0001+00,2024-01-01 00:00:00.0002+00)'",
                r#"{"gte":"2024-01-01T00:00:00.0001Z","lt":"2024-01-01T00:00:00.0002Z"}"#,
            ),
            (
                "'[2024-01-01 00:00+02,infinity)'",
                r#"{"gte":"2023-12-31T22:00:00Z","lt":"infinity"}"#,
            ),
            ("'[2024-01-01 00:00+00,)'", r#"{"gte":"2024-01-01T00:00:00Z"}"#),
            ("'empty'", r#"{"empty":true}"#),
        ],
    ),
    of(
        "floatrange",
        &[
            ("'[-Infinity,1e+20)'", r#"{"gte":"-Infinity","lt":1e+20}"#),
            ("'[1.5,NaN]'", r#"{"gte":1.5,"lte":"NaN"}"#),
        ],
    ),
    of("textrange", &[(r#"textrange('', 'z"\ ,)', '[]')"#, r#"{"gte":"","lte":"z\"\\ ,)"}"#)]),
    of(
        "int4multirange",
        &[
            ("'{[1,3),[5,)}'", r#"[{"gte":1,"lt":3},{"gte":5}]"#),
            ("'{}'", "[]"),
            ("'{(,)}'", "[{}]"),
        ],
    ),
    of(
        "tstzmultirange",
        &[(
            "'{[2024-01-01 00:00+00,2024-01-02 00:00+00),(2025-01-01 00:00+00,infinity]}'",
            concat!(
                r#"[{"gte":"2024-01-01T00:00:00Z","lt":"2024-01-02T00:00:00Z"},"#,
                r#"{"gt":"2025-01-01T00:00:00Z","lte":"infinity"}]"#,
            ),
        )],
    ),
    of(
        "floatmultirange",
        &[("'{[1.5,2],[NaN,NaN]}'", r#"[{"gte":1.5,"lte":2},{"gte":"NaN","lte":"NaN"}]"#)],
    ),
    of(
        "nummultirange[]",
        &[("array['{[1,2]}'::nummultirange, '{}']", r#"[[{"gte":"1","lte":"2"}],[]]"#)],
    ),
];
