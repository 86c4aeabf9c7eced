// IN WORK by another engineer ("apps2"), who has taken over std-check, dirtier and http: leave these three alone.
fn main() {}
