//! A document as a tree whose every value knows where it stands in the text, whichever language it was written in.

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    /// Bytes from the start of the text.
    pub(super) offset: usize,
}

/// What TOML and JSON can both say, and what only one of them can.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    /// Whole numbers of TOML have 64 bits and a sign.
    Whole(i64),
    Decimal(f64),
    Truth(bool),
    List(Vec<Node>),
    /// In the order of the text.
    Table(Vec<Entry>),
    /// A date of TOML, as it is written.
    Date(String),
    /// `null` of JSON.
    Null,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the key stands.
    pub(super) offset: usize,
    pub(super) node: Node,
}

impl Value {
    /// What is there, for an error message.
    pub(super) fn found(&self) -> String {
        match self {
            Self::Text(text) => format!("{:?}", shortened(text)),
            Self::Whole(number) => number.to_string(),
            Self::Decimal(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Date(date) => format!("the date {date}"),
            Self::Null => "null".to_owned(),
        }
    }
}

/// The beginning of a text that may be a whole file put in the wrong place.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    let mut short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

impl Node {
    /// Where the value of each key stands, by its path: `network.in.limit`, `mount[0].mode`.
    pub(super) fn places(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, path: &str, found: &mut Vec<(String, usize)>) {
        match &self.value {
            Value::Table(entries) => {
                for entry in entries {
                    let below = format!("{path}.{}", entry.key);
                    let below = below.trim_start_matches('.');
                    found.push((below.to_owned(), entry.offset));
                    entry.node.collect(below, found);
                }
            }
            Value::List(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    let below = format!("{path}[{index}]");
                    found.push((below.clone(), node.offset));
                    node.collect(&below, found);
                }
            }
            Value::Text(_)
            | Value::Whole(_)
            | Value::Decimal(_)
            | Value::Truth(_)
            | Value::Date(_)
            | Value::Null => {}
        }
    }
}

/// Where each line of a text begins.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(ends.map(|(end, _)| end + 1).collect())
    }

    /// The line that a byte is in, from 1.
    pub(super) fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset) + 1
    }
}
