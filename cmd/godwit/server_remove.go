package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newServerRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a client; its link and key are good for nothing any more",
		Args:  takes("NAME"),
	}
	dir := dirFlag(cmd, "server")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := loadServer(dir)
		if err != nil {
			return err
		}
		if err := d.Remove(args[0]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", args[0])
		return nil
	}
	return cmd
}
