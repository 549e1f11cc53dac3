package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
)

func newServerClients() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "clients",
		Short: "List the clients",
		Args:  takes(),
	}
	dir := dirFlag(cmd, "server")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := loadServer(dir)
		if err != nil {
			return err
		}
		// Broken files are told after the clients that are well.
		records, err := d.Clients()
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tINNER IPV4\tINNER IPV6\tSTATE")
		for _, r := range records {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Name, r.Inner4, r.Inner6, clientState(r, time.Now()))
		}
		if e := w.Flush(); e != nil {
			return &config.Error{What: "cannot write: " + lastCause(e), Where: "standard output", Err: e}
		}
		return err
	}
	return cmd
}

func clientState(r config.ClientRecord, now time.Time) string {
	switch {
	case r.NTHash != nil:
		return "user with a password"
	case r.PSK != "":
		return "user with a shared secret"
	case r.Certified:
		return "user with a certificate"
	case r.Joined:
		return "joined"
	case now.Before(r.Expires) && r.Invitation != nil:
		return "invited once until " + r.Expires.Local().Format("2006-01-02 15:04")
	case now.Before(r.Expires):
		return "invited until " + r.Expires.Local().Format("2006-01-02 15:04")
	}
	return "link expired"
}
