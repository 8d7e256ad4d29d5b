//! Many names in little memory.

/// Names end to end in one text: 8 bytes each in addition to their letters, for lists of millions.
#[derive(Debug, Default)]
pub(super) struct Names {
    text: String,
    /// Where each name ends.
    ends: Vec<usize>,
}

impl Names {
    pub(super) fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(self.text.len());
    }

    /// The name pushed as number `index`, from 0; panics beyond the last.
    pub(super) fn get(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[index]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let mut names = Names::default();
        let texts = ["a.jpg", "", "ü", "b.png"];
        texts.iter().for_each(|name| names.push(name));
        assert_eq!([0, 1, 2, 3].map(|index| names.get(index)), texts);
    }
}
