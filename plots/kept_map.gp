# Which positions each layer keeps: one panel per strategy.
set border 15
unset grid
unset colorbox
set tics font ',10' scale 0.5
raw_step = n_pos / 4.0
decade = 10 ** floor(log10(raw_step))
set xtics decade * (raw_step / decade < 2 ? 1 : raw_step / decade < 5 ? 2 : 5)
set palette defined (0 '#ffffff', 1 '#0072B2')
set cbrange [0:1]
set xrange [0:n_pos]
set yrange [-0.5:n_layers - 0.5]
note = 'white: no KV head keeps it, blue: all do; position along, layers up'.(n_more ? sprintf('; %d more strategies not shown', n_more) : '')
wide = 0.94 / n_columns
high = 0.82 / n_rows
do for [fmt in 'svg png'] {
    eval 'set term '.(fmt eq 'svg' ? svg : png)
    set output name.'.'.fmt
    set multiplot
    set label 1 'What is kept' at screen 0.5, screen 0.97 center font ',17'
    set label 2 note at screen 0.97, screen 0.025 right font ',11' textcolor rgb '#555555' noenhanced
    set label 3 'run '.run at screen 0.01, screen 0.025 font ',11' textcolor rgb '#555555' noenhanced
    do for [i=1:n_panels] {
        col = (i - 1) % n_columns
        row = (i - 1) / n_columns
        set lmargin at screen 0.06 + col * wide
        set rmargin at screen 0.06 + (col + 1) * wide - 0.05
        set tmargin at screen 0.90 - row * high
        set bmargin at screen 0.90 - (row + 1) * high + 0.085
        set format x (i + n_columns > n_panels ? '%g' : '')
        set title panel[i] font ',12' offset 0,-0.6
        plot data using 'position':'layer':sprintf('share%d', i) with image
        unset label 1
        unset label 2
        unset label 3
    }
    unset multiplot
    unset output
}
