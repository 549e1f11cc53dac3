package mobility

import (
	"errors"
	"testing"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
)

// Whatever was captured of a client's registrations may be delivered later, from
// anywhere, in any order. ESP's replay window takes out what has arrived
// before; this is about what it cannot know of: packets that were held back.
func TestCapturedRegistrations(t *testing.T) {
	elsewhere := func(size int) func(bt *bindingTest, n int) error {
		return func(bt *bindingTest, n int) error { return bt.copy(n, "u66", size, nil) }
	}
	for _, tt := range []struct {
		name    string
		held    int           // registration that the packet is of; the current one is 3
		late    time.Duration // after the current one was made
		deliver func(bt *bindingTest, n int) error
		err     error // nil: it is answered, but data stays
	}{
		{"an older copy from elsewhere", 2, time.Minute, elsewhere(1400), ErrStale},
		{"an older copy while a newer registration runs", 2, 0, elsewhere(1400), ErrStale},
		{"an older short copy", 1, 0, elsewhere(0), ErrStale},
		{"an older copy from where it was sent", 2, 0, func(bt *bindingTest, n int) error { return bt.copy(n, "u2", 1400, nil) }, ErrStale},
		{"an older confirmation", 2, 0, func(bt *bindingTest, n int) error { return bt.confirm(n, "u2", nil) }, ErrStale},
		{"a copy of the current one, an hour late", 3, time.Hour, elsewhere(1400), nil},
		{"the same by a better encapsulation than the one in use", 4, time.Hour, elsewhere(1400), nil},
		{"its short copy", 3, time.Hour, elsewhere(0), nil},
		{"its confirmation from elsewhere", 3, time.Hour, func(bt *bindingTest, n int) error {
			k := bt.last[3].Cookie
			return bt.copy(n, "u66", 0, func(m *regmsg.Request) { m.Cookie = k })
		}, ErrCarrier},
		{"a decision from elsewhere", 3, time.Hour, func(bt *bindingTest, n int) error {
			k := bt.last[3].Cookie
			return bt.copy(n, "u66", 0, func(m *regmsg.Request) { m.Cookie, m.Decision = k, 1 })
		}, ErrCarrier},
	} {
		bt := newBindingTest(t)
		for n, by := range []string{"u1", "u2", "u3"} {
			bt.copies(n+1, by)
			if err := bt.confirm(n+1, by, nil); err != nil {
				t.Fatal(err)
			}
		}
		current := CarrierID(3)
		if tt.held == 4 {
			bt.copies(4, "t4")
			current = 4
		}
		bt.after(tt.late)
		bt.collect()
		bt.log = nil
		if err := tt.deliver(bt, tt.held); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v", tt.name, err)
		}
		for _, a := range bt.b.Actions() {
			if s, ok := a.(Send); tt.err != nil || !ok || s.ID != 66 || s.PadTo > 1400 {
				t.Errorf("%s does %+v", tt.name, a)
			}
		}
		if got := bt.b.Current().ID; got != current {
			t.Errorf("%s: data goes to carrier %d", tt.name, got)
		}
		bt.after(time.Minute)
		if got := bt.b.Current().ID; got != current {
			t.Errorf("%s: a minute later data goes to carrier %d", tt.name, got)
		}
	}
}

// A copy that is late for honest reasons moves the data once its cookie is back.
func TestLateCopyThatIsConfirmed(t *testing.T) {
	for _, first := range []string{"t1", "u1"} {
		bt := newBindingTest(t)
		bt.copies(1, first)
		if err := bt.confirm(1, first, nil); err != nil {
			t.Fatal(err)
		}
		bt.after(time.Minute)
		bt.copies(1, "u2")
		bt.collect()
		if bt.b.Current().ID != 1 {
			t.Errorf("%s: it moves before it is proven", first)
		}
		if err := bt.confirm(1, "u2", nil); err != nil {
			t.Fatal(err)
		}
		if bt.b.Current().ID != 2 {
			t.Errorf("%s: it does not move when it is proven", first)
		}
	}
}

// A client whose first carrier was never proven may start over by another.
func TestLateCopyWhereNothingIsProven(t *testing.T) {
	bt := newBindingTest(t)
	bt.copies(1, "u1")
	bt.after(10 * time.Second)
	bt.copies(1, "u2")
	bt.collect()
	if bt.b.Current().ID != 2 {
		t.Errorf("current is %+v", bt.b.Current())
	}
}
