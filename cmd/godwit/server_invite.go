package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
)

// maxExpiry bounds how long a link may be good, and keeps its time in the
// link's format.
const maxExpiry = 10 * 366 * 24 * time.Hour

func newServerInvite() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "invite NAME",
		Short: "Make a client and print its link",
		Long: `Makes a client called NAME and prints its link, which holds the client's
private key: whoever has it is that client. Give each device a link of its own.`,
		Args: takes("NAME"),
	}
	dir := dirFlag(cmd, "server")
	expires := cmd.Flags().Duration("expires", config.DefaultExpiry, "time within which the link must be used")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *expires < time.Second || *expires > maxExpiry {
			return usage(cmd, "wrong --expires: "+expires.String()+" is not between 1s and ten years", "write it as 168h")
		}
		d, err := loadServer(dir)
		if err != nil {
			return err
		}
		l, err := d.Invite(args[0], time.Now(), *expires)
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), l)
		return nil
	}
	return cmd
}
