/* The program: hands the command line to its verb and exits with its code. The only file that
 * exits. */
#include "run/cli.h"

int main(int argc, char **argv)
{
    struct kvg_cli cli = {.out = stdout, .err = stderr};
    return kvg_cli_main(&cli, argc, argv);
}
