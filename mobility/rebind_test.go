package mobility

import (
	"errors"
	"testing"
	"time"
)

// registered has registration 1 made and proven by u1.
func registered(t *testing.T) *bindingTest {
	bt := newBindingTest(t)
	bt.copies(1, "u1")
	if err := bt.confirm(1, "u1", nil); err != nil {
		t.Fatal(err)
	}
	bt.after(time.Minute)
	bt.collect()
	bt.log = nil
	return bt
}

func TestReboundAndProven(t *testing.T) {
	bt := registered(t)
	if err := bt.b.Rebound(bt.now, bt.arrival("u2", 200)); err != nil {
		t.Fatal(err)
	}
	bt.want("the data follows, unproven, and a cookie with it", "u2:1.2=udp/0", "use u2?")
	if v := bt.b.Current().Verdict; v != NAPT {
		t.Errorf("verdict %v", v)
	}
	if err := bt.confirm(1, "u2", nil); err != nil {
		t.Fatal(err)
	}
	bt.want("the echo proves it", "validate u2")
	bt.after(time.Minute)
	bt.want("the old mapping is let go", "close u1")
	if bt.b.Current().ID != 2 {
		t.Errorf("current is %+v", bt.b.Current())
	}
}

// Whoever is first with a copy of a packet gets three times its size and no
// more, and for a second.
func TestReboundAndNotProven(t *testing.T) {
	bt := registered(t)
	if err := bt.b.Rebound(bt.now, bt.arrival("u2", 200)); err != nil {
		t.Fatal(err)
	}
	// A second one before the first is proven leads back to what was proven.
	if err := bt.b.Rebound(bt.now, bt.arrival("u3", 200)); err != nil {
		t.Fatal(err)
	}
	bt.log = nil
	bt.after(revertAfter - 1)
	if bt.b.Current().ID != 3 {
		t.Fatalf("current is %+v", bt.b.Current())
	}
	bt.after(time.Minute)
	if bt.b.Current().ID != 1 {
		t.Errorf("nobody proved the new addresses, and current is %+v", bt.b.Current())
	}
	if n := len(bt.b.carriers); n != 1 {
		t.Errorf("%d carriers are left", n)
	}
	// What was proven still works.
	bt.log = nil
	bt.copies(2, "u4")
	if bt.b.Current().ID != 4 {
		t.Errorf("after a registration current is %+v", bt.b.Current())
	}
}

func TestReboundIsIgnored(t *testing.T) {
	bt := registered(t)
	for _, by := range []string{"u1", "t5", "w6"} {
		if err := bt.b.Rebound(bt.now, bt.arrival(by, 200)); !errors.Is(err, ErrCarrier) {
			t.Errorf("%s: %v", by, err)
		}
	}
	bt.want("nothing follows")
	if err := newBindingTest(t).b.Rebound(epoch, bt.arrival("u9", 200)); !errors.Is(err, ErrCarrier) {
		t.Errorf("without a registration: %v", err)
	}
}
