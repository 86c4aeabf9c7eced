//! The table of `docs/verbs.md`.

const DOC: &str = include_str!("../../../docs/verbs.md");

/// What happens when a verb comes in a state.
pub struct Cell {
    pub verb: String,
    /// The kind of answer.
    pub answer: String,
    /// The VM's final state, after all operations have ended.
    pub after: String,
}

fn lines() -> impl Iterator<Item = Vec<&'static str>> {
    let table = DOC.split_once("## The table").expect("the table").1;
    let rows = table.lines().filter(|line| line.starts_with('|'));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// The states that have a row.
pub fn rows() -> Vec<&'static str> {
    lines().skip(2).map(|row| row[0]).collect()
}

/// The row of a state.
pub fn cells(state: &str) -> Vec<Cell> {
    let verbs = lines().next().expect("a head");
    let row = lines().find(|row| row[0] == state).unwrap_or_else(|| panic!("no row {state}"));
    assert_eq!(verbs.len(), row.len(), "{state}");
    let cell = |(verb, cell): (&&str, &&str)| {
        let (answer, after) = cell.split_once(" → ").unwrap_or_else(|| panic!("{state}: {cell}"));
        Cell { verb: (*verb).into(), answer: answer.into(), after: after.into() }
    };
    verbs.iter().zip(&row).skip(1).map(cell).collect()
}
