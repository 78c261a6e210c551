//! Names that the server makes up (`generateName`).

/// Letters of generated names: no vowels, so no words.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest prefix that a generated name keeps.
const LONGEST_PREFIX: usize = 58;

/// A name with five random letters after the prefix.
pub fn generated_name(prefix: &str) -> String {
    let end = (0..=prefix.len().min(LONGEST_PREFIX)).rev().find(|at| prefix.is_char_boundary(*at)).unwrap_or(0);
    let mut name = prefix[..end].to_owned();
    name.extend((0..5).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])));
    name
}
