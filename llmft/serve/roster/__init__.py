"""Who can be offered, and when: the roster that the desk imports, searches and books from.

importing   import_roster(store, path, by) -> ImportedRoster · roster_version(store) -> str | None
search      find_doctors(store, Wish(…), limit) -> list[Doctor] · free_slots(store, Wish(…), after, limit) -> list[FoundSlot]
            slot_named(store, slot_id) -> FoundSlot | None
booking     book(store, slot_id, call_id, by, *, key) -> Booking · release(store, booking_id, by) -> Booking
            bookings_of(store, call_id) -> list[Booking]

The model never sees any of this: it gives a specialty and an urgency, and code picks from here.
"""
