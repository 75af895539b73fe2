// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

#[test]
fn sixty_four_groups_cost_one_table_and_kills_in_each() {
    let (two, many) = (members(2).unwrap(), members(64).unwrap());
    assert!(two.as_ruled && many.as_ruled, "{two:?} {many:?}");
    assert_eq!(two.table_pages, many.table_pages);
    assert_eq!(many.requests[0].unmap, Kills { asked: 64, stores: 64 });
    assert_eq!(many.requests[2].unmap, Kills { asked: 64 * 512, stores: 64 });
}

#[test]
fn sixty_four_containers_cost_their_tables_and_the_memory_once() {
    let (one, many) = (containers(1).unwrap(), containers(64).unwrap());
    assert!(one.as_ruled && many.as_ruled, "{one:?} {many:?}");
    assert_eq!(many.table_pages, 64 * one.table_pages);
    assert_eq!(many.region_pages, one.region_pages);
}

#[test]
fn a_phb3_has_256_pes() {
    assert!(members(256).unwrap().as_ruled);
}
