package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
)

// The runtime's names, in src/runtime/runtime2.go.
const (
	runtimeSelect  = "waitReasonSelect"         // what gVisor parks with
	runtimeDurable = "waitReasonSynctestSelect" // what a bubble counts as durably blocked
	runtimeIdle    = "isIdleInSynctest"         // the table that says so
)

// gvisorSelect is the constant that is changed in gVisor's package sync.
const gvisorSelect = "WaitReasonSelect"

// waitReasons are the numbers of the Go release in use.
type waitReasons struct{ plain, durable int }

// readWaitReasons reads the numbers from the runtime's source. It fails rather
// than guesses when the source no longer looks as it does in Go 1.26.
func readWaitReasons(file string) (waitReasons, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return waitReasons{}, err
	}
	var r waitReasons
	if r.plain, err = iotaOf(f, runtimeSelect); err != nil {
		return waitReasons{}, err
	}
	if r.durable, err = iotaOf(f, runtimeDurable); err != nil {
		return waitReasons{}, err
	}
	if !tableHolds(f, runtimeIdle, runtimeDurable) {
		return waitReasons{}, fmt.Errorf("the runtime's table %s no longer names %s", runtimeIdle, runtimeDurable)
	}
	return r, nil
}

// iotaOf gives the position of name in its const block, which must count by
// iota from zero, one name a line.
func iotaOf(f *ast.File, name string) (int, error) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		at := slices.IndexFunc(g.Specs, func(s ast.Spec) bool {
			return s.(*ast.ValueSpec).Names[0].Name == name
		})
		if at < 0 {
			continue
		}
		for i, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			first := i == 0 && len(v.Values) == 1 && isIdent(v.Values[0], "iota")
			if len(v.Names) != 1 || !first && (i == 0 || len(v.Values) > 0) {
				return 0, fmt.Errorf("the runtime's constants around %s do not count by iota alone", name)
			}
		}
		return at, nil
	}
	return 0, fmt.Errorf("the runtime has no constant %s any more", name)
}

// tableHolds reports whether the variable is a composite literal with key: true.
func tableHolds(f *ast.File, variable, key string) bool {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if v.Names[0].Name != variable || len(v.Values) != 1 {
				continue
			}
			l, ok := v.Values[0].(*ast.CompositeLit)
			return ok && slices.ContainsFunc(l.Elts, func(e ast.Expr) bool {
				kv, ok := e.(*ast.KeyValueExpr)
				return ok && isIdent(kv.Key, key) && isIdent(kv.Value, "true")
			})
		}
	}
	return false
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// patch returns the source of gVisor's constants with the durable reason in
// place of the plain one. The number there must be this release's, or else
// gVisor and this Go do not belong together.
func patch(src []byte, r waitReasons) ([]byte, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "", src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if v.Names[0].Name != gvisorSelect || len(v.Values) != 1 {
				continue
			}
			l, ok := v.Values[0].(*ast.BasicLit)
			if !ok || l.Value != strconv.Itoa(r.plain) {
				return nil, fmt.Errorf("%s is not %d, this Go release's %s", gvisorSelect, r.plain, runtimeSelect)
			}
			from, to := fset.Position(l.Pos()).Offset, fset.Position(l.End()).Offset
			return slices.Concat(src[:from], strconv.AppendInt(nil, int64(r.durable), 10), src[to:]), nil
		}
	}
	return nil, fmt.Errorf("gVisor has no constant %s any more", gvisorSelect)
}
