//! Documents, ids and routings as configured, and what does not fit.

use super::*;
use crate::document::template::parse_template;

fn relation(columns: &[(&str, u32)]) -> Relation {
    Relation::for_test("users", columns)
}

fn users() -> Relation {
    relation(&[("id", 20), ("first", 25), ("last", 25), ("secret", 25), ("_id", 23)])
}

fn compile(relation: &Relation, table: &TableSettings) -> Result<Projection, ProjectionError> {
    Projection::compile(relation, &["id".to_owned()], table, &TypeRegistry::builtin())
}

fn table() -> TableSettings {
    TableSettings::with_defaults("public", "users")
}

fn document(projection: &Projection, row: &[Field<'_>]) -> String {
    let mut out = Vec::new();
    projection.write_document(row, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

const ROW: [Field<'static>; 5] =
    [Field::Text(b"7"), Field::Text(b"A\"da"), Field::Null, Field::Text(b"s"), Field::Text(b"1")];

#[test]
fn every_column_by_default_and_reserved_names_renamed() {
    let projection = compile(&users(), &table()).unwrap();
    let expected = r#"{"id":7,"first":"A\"da","last":null,"secret":"s","pg_id":1}"#;
    assert_eq!(document(&projection, &ROW), expected);
    let mut id = Vec::new();
    projection.write_id(&ROW, &mut id).unwrap();
    assert_eq!(id, b"7");
}

#[test]
fn chosen_renamed_and_computed() {
    let mut table = table();
    table.columns = ColumnChoice::Only(vec!["first".to_owned()]);
    table.rename.insert("first".to_owned(), "given".to_owned());
    let template = parse_template("{first} {last}").unwrap();
    table.computed.insert("full_name".to_owned(), template);
    let projection = compile(&users(), &table).unwrap();
    assert_eq!(document(&projection, &ROW), r#"{"given":"A\"da","full_name":"A\"da "}"#);
    assert!(projection.uses(0) && projection.uses(2) && !projection.uses(3));
}

#[test]
fn absent_columns_leave_their_fields_out() {
    let mut table = table();
    table.computed.insert("both".to_owned(), parse_template("{first}{last}").unwrap());
    table.columns = ColumnChoice::Except(vec!["_id".to_owned(), "secret".to_owned()]);
    let projection = compile(&users(), &table).unwrap();
    let mut row = ROW;
    row[1] = Field::Absent;
    assert_eq!(document(&projection, &row), r#"{"id":7,"last":null}"#);
    row[1] = Field::Null;
    assert_eq!(document(&projection, &row), r#"{"id":7,"first":null,"last":null,"both":null}"#);
}

#[test]
fn routed_by_a_column_that_need_not_be_a_field() {
    let mut table = table();
    table.columns = ColumnChoice::Only(vec!["first".to_owned()]);
    table.routing = Some("secret".to_owned());
    let projection = compile(&users(), &table).unwrap();
    assert!(projection.uses(3) && !projection.uses(2));
    assert_eq!(document(&projection, &ROW), r#"{"first":"A\"da"}"#);
    assert_eq!(projection.routing(&ROW), Ok(Some(b"s".as_slice())));
    for lacking in [Field::Null, Field::Absent] {
        let mut row = ROW;
        row[3] = lacking;
        let missing = ProjectionError::RoutingMissing("secret".to_owned());
        assert_eq!(projection.routing(&row), Err(missing));
    }
    table.routing = Some("nope".to_owned());
    assert!(matches!(
        compile(&users(), &table),
        Err(ProjectionError::NoSuchColumn { place: "routing", .. })
    ));
    assert_eq!(compile(&users(), &self::table()).unwrap().routing(&ROW), Ok(None));
}

#[test]
fn what_does_not_fit_is_named() {
    let mut missing = table();
    missing.columns = ColumnChoice::Only(vec!["nope".to_owned()]);
    assert!(matches!(
        compile(&users(), &missing),
        Err(ProjectionError::NoSuchColumn { column, .. }) if column == "nope"
    ));
    let mut same = table();
    same.rename.insert("first".to_owned(), "last".to_owned());
    let clash = Err(ProjectionError::SameName("last".to_owned()));
    assert_eq!(compile(&users(), &same).map(|_| ()), clash);
    let dotted = relation(&[("id", 20), ("t", 25), ("t.x", 25)]);
    assert!(matches!(
        compile(&dotted, &table()),
        Err(ProjectionError::NameInside { outer, inner }) if outer == "t" && inner == "t.x"
    ));
    let odd = relation(&[("id", 20), ("a..b", 25)]);
    let bad = Err(ProjectionError::BadName("a..b".to_owned()));
    assert_eq!(compile(&odd, &table()).map(|_| ()), bad);
}

#[test]
fn a_row_without_its_key_or_of_another_length_is_refused() {
    let projection = compile(&users(), &table()).unwrap();
    let mut row = ROW;
    row[0] = Field::Absent;
    let missing = Err(ProjectionError::KeyMissing("id".to_owned()));
    assert_eq!(projection.write_id(&row, &mut Vec::new()), missing);
    let short = Err(ProjectionError::RowLength { expected: 5, found: 4 });
    assert_eq!(projection.write_document(&ROW[..4], &mut Vec::new()), short);
}
