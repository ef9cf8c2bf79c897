//! Templates of computed fields: `"{first_name} {last_name}"`. `{{` and `}}` stand for the braces.

use crate::settings::TemplatePart;

/// A template that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without `}`.
    #[error("a \"{{\" is not closed; write \"{{{{\" for the character itself")]
    NotClosed,
    /// `}` without `{`.
    #[error("a \"}}\" closes nothing; write \"}}}}\" for the character itself")]
    NotOpened,
    /// `{}`.
    #[error("\"{{}}\" names no column")]
    NoColumn,
    /// Nothing to compute from.
    #[error("the template names no column")]
    NoColumnAtAll,
}

/// The parts of a template, in order.
///
/// # Errors
/// Braces that do not match, or no column at all.
pub fn parse_template(template: &str) -> Result<Vec<TemplatePart>, TemplateError> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let (plain, tail) = rest.split_at(at);
        literal.push_str(plain);
        if let Some(tail) = tail.strip_prefix("{{") {
            literal.push('{');
            rest = tail;
        } else if let Some(tail) = tail.strip_prefix("}}") {
            literal.push('}');
            rest = tail;
        } else if let Some(tail) = tail.strip_prefix('{') {
            let (column, tail) = tail.split_once('}').ok_or(TemplateError::NotClosed)?;
            if column.is_empty() {
                return Err(TemplateError::NoColumn);
            }
            if !literal.is_empty() {
                parts.push(TemplatePart::Literal(std::mem::take(&mut literal)));
            }
            parts.push(TemplatePart::Column(column.to_owned()));
            rest = tail;
        } else {
            return Err(TemplateError::NotOpened);
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(TemplatePart::Literal(literal));
    }
    if parts.iter().any(|part| matches!(part, TemplatePart::Column(_))) {
        Ok(parts)
    } else {
        Err(TemplateError::NoColumnAtAll)
    }
}

/// The template that has these parts.
pub fn template_of(parts: &[TemplatePart]) -> String {
    let text = |part: &TemplatePart| match part {
        TemplatePart::Literal(text) => text.replace('{', "{{").replace('}', "}}"),
        TemplatePart::Column(name) => format!("{{{name}}}"),
    };
    parts.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_literals_and_braces() {
        let column = |name: &str| TemplatePart::Column(name.to_owned());
        let literal = |text: &str| TemplatePart::Literal(text.to_owned());
        assert_eq!(parse_template("{a} {b}"), Ok(vec![column("a"), literal(" "), column("b")]));
        assert_eq!(parse_template("{{{a}}}"), Ok(vec![literal("{"), column("a"), literal("}")]));
        assert_eq!(parse_template("{a b}"), Ok(vec![column("a b")]));
    }

    #[test]
    fn parts_lead_back_to_their_template() {
        for template in ["{a} {b}", "{{{a}}}", "{a b}{{}}", "a: {a}\""] {
            assert_eq!(template_of(&parse_template(template).unwrap()), template);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        assert_eq!(parse_template("{a"), Err(TemplateError::NotClosed));
        assert_eq!(parse_template("a}"), Err(TemplateError::NotOpened));
        assert_eq!(parse_template("{}"), Err(TemplateError::NoColumn));
        assert_eq!(parse_template("plain"), Err(TemplateError::NoColumnAtAll));
    }
}
