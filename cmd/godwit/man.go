package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/godwit-net/godwit/config"
)

// newMan writes a manual page for each command, made from the command tree.
// SOURCE_DATE_EPOCH in the environment sets the date they bear.
func newMan() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "man [FOLDER]",
		Short:  "Write the manual pages, godwit.1 and one for each command, to a folder",
		Hidden: true, // for packagers
	}
	// Packages bring a unit of their own, as nobody runs install there.
	binary := cmd.Flags().String("unit", "", "print a unit for a program at this path instead: that of the machine for a server, that of a user for a client")
	role := cmd.Flags().String("role", "server", "server or client")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *binary != "" {
			u := unit{Role: *role, Binary: *binary, Package: true}
			switch *role {
			case "server":
				u.Dir, u.System = "/etc/godwit/server", true
			case "client":
			default:
				return usage(cmd, "wrong --role "+*role, "server or client")
			}
			_, err := cmd.OutOrStdout().Write(u.text())
			return err
		}
		if err := takes("FOLDER")(cmd, args); err != nil {
			return err
		}
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return &config.Error{What: "cannot write manual pages: " + lastCause(err), Where: args[0], Do: "name a folder that can be written", Err: err}
		}
		date := time.Unix(0, 0)
		if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
			var seconds int64
			if _, err := fmt.Sscan(epoch, &seconds); err == nil {
				date = time.Unix(seconds, 0)
			}
		}
		return manTree(cmd.Root(), args[0], date)
	}
	return cmd
}

// manTree writes the page of cmd and those of its subcommands.
func manTree(cmd *cobra.Command, folder string, date time.Time) error {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && !c.IsAdditionalHelpTopicCommand() {
			if err := manTree(c, folder, date); err != nil {
				return err
			}
		}
	}
	cmd.DisableAutoGenTag = true
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	var b bytes.Buffer
	head := &doc.GenManHeader{Title: strings.ToUpper(name), Section: "1", Date: &date, Source: "godwit", Manual: "godwit"}
	if err := doc.GenMan(cmd, head, &b); err != nil {
		return fmt.Errorf("manual page of %s: %w", cmd.CommandPath(), err)
	}
	path := filepath.Join(folder, name+".1")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return &config.Error{What: "cannot write a manual page: " + lastCause(err), Where: path, Do: "make room, or name another folder", Err: err}
	}
	return nil
}
