# Bytes in the store after each turn of one conversation.
set lmargin at screen 0.115
set rmargin at screen turns_margin
set tmargin at screen 0.90
set bmargin at screen 0.1333
set logscale y
set xrange [0.9:turns_x_hi]
set xtics 1, turns_x_hi > 16 ? ceil(turns_x_hi / 16.0) : 1
set yrange [turns_lo:turns_hi]
set title 'Bytes held over the conversation '.item
set xlabel 'turn'
set ylabel 'logical MB after the turn (log scale)'
do for [d=-5:5] {
    set ytics add (sprintf('%g', 10.0**d) 10.0**d, sprintf('%g', 2*10.0**d) 2*10.0**d, sprintf('%g', 5*10.0**d) 5*10.0**d)
}
set label 1 'run '.run at screen 0.01, screen 0.03 font ',11' textcolor rgb '#555555' noenhanced
do for [i=1:n_turns] {
    set label 10 + i turns_text[i] at graph 1.04, first turns_y[i] left font ',12' textcolor rgb colour(turns_series[i]) noenhanced
    set arrow 10 + i from graph 1.004, first turns_end[i] to graph 1.034, first turns_y[i] nohead lw 1 lc rgb colour(turns_series[i])
}
do for [fmt in 'svg png'] {
    eval 'set term '.(fmt eq 'svg' ? svg : png)
    set output name.'.'.fmt
    plot for [i=0:n_turns-1] data using (column('series') == i ? column('turn') : 1/0):'megabytes' with linespoints lw 2 lc rgb colour(i) dt dash(i) pt shape(i) ps 0.9
    unset output
}
