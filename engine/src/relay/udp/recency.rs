//! Which association was used longest ago: a list through small numbers, in constant time. Pure.

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Link {
    older: u32,
    newer: u32,
}

/// Numbers in the order of their last use.
pub struct Recency {
    links: Vec<Link>,
    oldest: u32,
    newest: u32,
}

impl Default for Recency {
    fn default() -> Self {
        Self {
            links: Vec::new(),
            oldest: NONE,
            newest: NONE,
        }
    }
}

impl Recency {
    pub fn oldest(&self) -> Option<usize> {
        (self.oldest != NONE).then_some(self.oldest as usize)
    }

    /// Adds a number that is not in the list, as the one used last.
    pub fn add(&mut self, number: usize) {
        if self.links.len() <= number {
            let link = Link {
                older: NONE,
                newer: NONE,
            };
            self.links.resize(number + 1, link);
        }
        let number = number as u32;
        self.links[number as usize] = Link {
            older: self.newest,
            newer: NONE,
        };
        match self.newest {
            NONE => self.oldest = number,
            newest => self.links[newest as usize].newer = number,
        }
        self.newest = number;
    }

    pub fn remove(&mut self, number: usize) {
        let Link { older, newer } = self.links[number];
        match older {
            NONE => self.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer as usize].older = older,
        }
        if self.oldest == NONE {
            // The list is empty: a flood's room is given back.
            self.links = Vec::new();
        }
    }

    /// The number was used now.
    pub fn touch(&mut self, number: usize) {
        if self.newest != number as u32 {
            self.remove(number);
            self.add(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(mut recency: Recency) -> Vec<usize> {
        let mut order = Vec::new();
        while let Some(oldest) = recency.oldest() {
            order.push(oldest);
            recency.remove(oldest);
        }
        order
    }

    fn filled(count: usize) -> Recency {
        let mut recency = Recency::default();
        for number in 0..count {
            recency.add(number);
        }
        recency
    }

    #[test]
    fn the_order_is_that_of_the_last_use() {
        let mut recency = filled(4);
        recency.touch(1);
        recency.touch(0);
        recency.touch(0);
        assert_eq!(drain(recency), [2, 3, 1, 0]);
    }

    #[test]
    fn any_place_can_be_removed_and_used_again() {
        let mut recency = filled(4);
        recency.remove(0);
        recency.remove(3);
        recency.remove(1);
        recency.add(3);
        recency.add(0);
        assert_eq!(drain(recency), [2, 3, 0]);
    }

    #[test]
    fn an_emptied_list_begins_anew() {
        let mut recency = filled(1);
        recency.touch(0);
        recency.remove(0);
        assert_eq!(recency.oldest(), None);
        recency.add(5);
        assert_eq!(drain(recency), [5]);
    }
}
